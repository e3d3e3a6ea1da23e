"""A space in fewer dimensions: along the principal axes of what trained, at unit length again."""

import json

import numpy as np
import pytest
import torch

from pmrl_cli import Aligner
from pmrl_cli.errors import UsageError
from pmrl_cli.model.reduction import principal_axes, reduced


def features(rows, seed=0):
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(0).standard_normal((2, 6, 16))
    latent = rng.standard_normal((rows, 6))
    return {f"m{m}": latent @ mixing[m] + 0.5 * rng.standard_normal((rows, 16)) for m in range(2)}


@pytest.fixture(scope="module")
def aligner():
    return Aligner(steps=0, test=0.2, device="cpu").fit(features(300))


def test_axes_are_those_of_the_mean_of_the_outer_products():
    vectors = torch.randn(40, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moment = torch.zeros(5, 5, dtype=torch.float64)
    for v in vectors:
        for i in range(5):
            for j in range(5):
                moment[i, j] += v[i] * v[j]
    axes = torch.from_numpy(principal_axes(moment)).double()
    energy = axes.T @ moment @ axes
    torch.testing.assert_close(energy, torch.diag(energy.diagonal()), atol=1e-4, rtol=0)
    assert (energy.diagonal().diff() < 0).all()
    assert (axes.gather(0, axes.abs().argmax(0, keepdim=True)) > 0).all()


def test_vectors_are_taken_along_the_axes_and_brought_to_unit_length():
    vectors = torch.tensor([[3.0, 4.0, 12.0], [0.0, 0.0, 0.0]])
    axes = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    assert torch.equal(reduced(vectors, axes), torch.tensor([[0.8, 0.6], [0.0, 0.0]]))


def test_a_fitted_space_can_be_had_in_any_number_of_its_dimensions(aligner):
    new = features(30, seed=1)
    whole = aligner.transform(new)
    axes = aligner.model.axes
    assert axes.shape == (aligner.dim, aligner.dim)
    for dim in (3, aligner.dim):
        fewer = aligner.in_dims(dim)
        assert fewer.dim == dim
        found = fewer.transform(new)
        for name, vectors in whole.items():
            along = vectors.astype(np.float64) @ axes[:, :dim]
            np.testing.assert_allclose(found[name], along / np.linalg.norm(along, axis=1, keepdims=True), atol=1e-6)
    for name, vectors in whole.items():  # all axes: the same cosines
        np.testing.assert_allclose(found[name] @ found["m0"].T, vectors @ whole["m0"].T, atol=1e-5)
    with pytest.raises(UsageError, match="cannot be reduced"):
        aligner.in_dims(aligner.dim + 1)


def test_a_dimension_asked_for_is_that_of_the_members_together(tmp_path):
    fitted = Aligner(steps=0, test=0.2, dim=9, device="cpu").fit(features(300))
    config, metrics = (json.loads(fitted.texts[name]) for name in ("config.json", "metrics.json"))
    whole = sum(member["dim"] for member in config["members"])
    assert fitted.dim == config["dim"] == config["reduced"] == 9
    assert whole > 9
    assert metrics["held_out.mrr"] == metrics["held_out.mrr.9d"]
    assert metrics[f"held_out.mrr.{whole}d"] > 0.9 * metrics["held_out.mrr"]
    assert "in 9 dimensions" in fitted.texts["README.md"]
    loaded = Aligner.load(fitted.save(tmp_path / "model"))
    new = features(20, seed=2)
    for name, vectors in fitted.transform(new).items():
        assert vectors.shape == (20, 9)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(loaded.transform(new)[name], vectors, atol=1e-6)
