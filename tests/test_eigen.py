"""The eigen-decompositions of small matrices against LAPACK's, at ties, at nothing, and at what is no number."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from pmrl_cli.eigen import _jacobi, eigh

EVERY = pytest.mark.parametrize(
    ("solve", "size"),
    [(eigh, size) for size in range(1, 9)] + [(_jacobi, size) for size in range(1, 9)],
    ids=lambda value: getattr(value, "__name__", value),
)


def families(size, count=200):
    """(count, K, K) matrices by name."""
    generator = torch.Generator().manual_seed(size)
    noise = torch.randn(count, size, size, generator=generator, dtype=torch.float64)
    noise = (noise + noise.mT) / 2
    unit = normalize(torch.randn(count, size, 16, generator=generator, dtype=torch.float64), dim=-1)
    duplicate = unit.clone()
    duplicate[:, -1] = duplicate[:, 0]
    opposite = unit.clone()
    opposite[:, -1] = -opposite[:, 0]
    identity = torch.eye(size, dtype=torch.float64)
    absent = unit @ unit.mT
    absent[:, 0] = absent[:, :, 0] = 0
    absent[:, 0, 0] = -1
    return {
        "gram": unit @ unit.mT,
        "random": noise / noise.abs().amax(),
        "almost orthogonal": identity + 1e-9 * noise,
        "orthogonal but for rounding": identity + 1e-15 * noise,
        "almost aligned": 1 + 1e-6 * noise,
        "aligned but for rounding": 1 + 1e-12 * noise,
        "duplicate": duplicate @ duplicate.mT,
        "opposite": opposite @ opposite.mT,
        "equicorrelated": (0.4 + 0.6 * identity).expand_as(noise),
        "one absent": absent,
        "diagonal": torch.diag_embed(torch.randint(-1, 2, (count, size), generator=generator).double()),
        "identity": identity.expand_as(noise),
        "ones": torch.ones_like(noise),
        "zero": torch.zeros_like(noise),
        "almost zero": 1e-152 * noise,
        "squares to zero": 1e-170 * noise,
    }


@EVERY
def test_every_matrix_is_decomposed_to_rounding(solve, size):
    for name, matrices in families(size).items():
        values, vectors = solve(matrices.movedim(0, -1))
        values, vectors = values.movedim(-1, 0), vectors.movedim(-1, 0)
        close = {"rtol": 0, "atol": 1e-13, "err_msg": name}
        np.testing.assert_allclose(values, np.linalg.eigvalsh(matrices.numpy())[:, ::-1], **close)
        np.testing.assert_allclose(matrices @ vectors, vectors * values[:, None], **close)
        np.testing.assert_allclose(vectors.mT @ vectors, np.broadcast_to(np.eye(size), matrices.shape), **close)
        assert (values.diff(dim=1) <= 0).all(), name


@EVERY
def test_what_is_no_number_stays_with_its_matrix(solve, size):
    matrices = families(size, 3)["gram"].movedim(0, -1)
    clean, _ = solve(matrices)
    spoilt = matrices.clone()
    spoilt[-1, 0, 1] = spoilt[0, -1, 1] = torch.nan
    values, vectors = solve(spoilt)
    assert values[:, 1].isnan().all()
    np.testing.assert_array_equal(values[:, ::2], clean[:, ::2])
    assert vectors[..., ::2].isfinite().all()


@EVERY
def test_any_shape_of_batch_will_do(solve, size):
    matrices = families(size, 6)["gram"].movedim(0, -1)
    values, vectors = solve(matrices.reshape(size, size, 2, 3))
    flat_values, flat_vectors = solve(matrices)
    np.testing.assert_array_equal(values.flatten(1), flat_values)
    np.testing.assert_array_equal(vectors.flatten(2), flat_vectors)
    values, vectors = solve(matrices[..., :0])
    assert values.shape == (size, 0)
    assert vectors.shape == (size, size, 0)
