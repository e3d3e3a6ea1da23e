"""What is watched at every evaluation is what diagnosis says."""

import numpy as np
import pytest
import torch

from pmrl_cli.retrieval.batches import read_batch
from pmrl_cli.stats.instances import InstanceStatistics, adjusted_shares
from pmrl_cli.train.watch import held_out_statistics
from tests.simulate import simulate


def batch_of(**options):
    data = simulate(**options)
    return read_batch(data, np.arange(len(data))), data.names


def watch(batch, names, **options):
    return held_out_statistics(batch.embeddings, batch.present, names, seed=0, **options)


def test_identical_modalities_are_fully_aligned_and_pull_at_nothing():
    z = torch.nn.functional.normalize(torch.randn(200, 8, generator=torch.manual_seed(0)), dim=1)
    found = held_out_statistics(z[:, None].repeat(1, 3, 1), torch.ones(200, 3, dtype=torch.bool), "abc", seed=0)
    assert found["A"] == pytest.approx(1, abs=1e-5)
    assert found["signed"] == pytest.approx(1, abs=1e-5)
    assert found["rho_q05"] == pytest.approx(1, abs=1e-5)
    assert [found[f"loading.{m}"] for m in "abc"] == pytest.approx([1, 1, 1], abs=1e-4)
    assert found["participation_ratio.a"] == pytest.approx(8, rel=0.1)


def test_independent_modalities_are_at_chance():
    generator = torch.manual_seed(0)
    z = torch.nn.functional.normalize(torch.randn(1500, 4, 32, generator=generator), dim=2)
    present = torch.ones(1500, 4, dtype=torch.bool)
    present[:700, 2:] = False  # rho of two and of four modalities do not compare; A does
    found = held_out_statistics(z * present[..., None], present, "abcd", seed=0)
    assert abs(found["A"]) < 0.02


def test_the_gradient_share_is_that_of_autograd():
    batch, names = batch_of(n=50, modalities=3, dim=6, noise=[0.3, 0.6, 2.0])
    z = batch.embeddings.double().requires_grad_()
    torch.linalg.svdvals(z)[:, 0].sum().backward()
    tangent = z.grad - (z.grad * z).sum(2, keepdim=True) * z
    sizes = tangent.norm(dim=2).mean(0)
    found = watch(batch, names, temperature=0.05, sign_aware=False)  # of the published objective: the plain spectrum
    assert [found[f"gradient_share.{m}"] for m in names] == pytest.approx((sizes / sizes.sum()).tolist(), rel=1e-4)


def test_an_orthogonal_modality_is_starved():
    generator = torch.manual_seed(0)
    first, second, third = torch.linalg.qr(torch.randn(300, 8, 3, generator=generator))[0].unbind(2)
    z = torch.stack([first, torch.nn.functional.normalize(first + 0.3 * second, dim=1), third], 1)
    every = torch.ones(300, 3, dtype=torch.bool)
    found = held_out_statistics(z, every, "abc", seed=0, temperature=0.05, sign_aware=False)
    assert found["gradient_share.c"] < 1e-3


def test_saturation_is_what_the_softmax_leaves():
    batch, names = batch_of(n=80, modalities=3, dim=6, missing=0.3)
    left = []
    for z, present in zip(batch.embeddings.double(), batch.present, strict=True):
        weights = (torch.linalg.svdvals(z[present]) / 0.05).softmax(0)
        left.append(float(1 - weights[0]))
    assert watch(batch, names, temperature=0.05)["saturation"] == pytest.approx(np.mean(left), rel=1e-3)
    assert "saturation" not in watch(batch, names)


def test_adjusted_shares_use_the_null_of_their_number_and_say_nothing_without_one():
    def statistics(number, rho):
        number, rho = np.array(number), np.array(rho, float)
        empty = np.zeros((len(rho), 3))
        return InstanceStatistics(number, rho, rho, rho, empty, empty)

    null = statistics([2, 2, 3, 4], [0.5, 0.7, 0.4, 1.0])
    found = adjusted_shares(statistics([2, 2, 3, 4, 5], [0.6, 1.0, 0.7, 1.0, 0.9]), null)
    np.testing.assert_allclose(found, [0, 1, 0.5, np.nan, np.nan])


def test_few_instances_say_what_they_can():
    batch, names = batch_of(n=1, modalities=2, dim=4)
    found = watch(batch, names)
    assert "A" not in found
    assert "participation_ratio.m0" not in found
    assert 0 <= found["signed"] <= 1
    assert list(found) == sorted(found)
