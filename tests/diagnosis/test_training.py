"""Saturation, temperature, gradient shares and negatives: closed forms and autograd."""

import math

import numpy as np
import pytest
import torch

from pmrl_cli.diagnosis.statistics.training import negatives
from pmrl_cli.retrieval.batches import Batch
from pmrl_cli.spectrum import spectrum
from pmrl_cli.stats.gradients import gradient_shares, saturation, suggested_temperature, tangent_gradients


def unit(x):
    return torch.nn.functional.normalize(x, dim=-1)


def batch_of(vectors, present=None):
    vectors = unit(torch.as_tensor(np.asarray(vectors)).float())
    present = torch.ones(vectors.shape[:2], dtype=torch.bool) if present is None else torch.as_tensor(present)
    return Batch(np.arange(len(vectors)), vectors * present[..., None], present)


def gaussian(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def equicorrelated(n, k, c):
    return np.tile(np.linalg.cholesky((1 - c) * np.eye(k) + c), (n, 1, 1))


@pytest.mark.parametrize(("k", "c"), [(2, 0.3), (3, 0.6), (5, 0.9)])
def test_equicorrelated_modalities_have_the_closed_form(k, c):
    batch = batch_of(equicorrelated(6, k, c))
    first, rest = math.sqrt(1 + (k - 1) * c), math.sqrt(1 - c)
    for temperature in (0.05, 0.5):
        weights = math.exp((rest - first) / temperature) * (k - 1)
        found = saturation(batch, np.arange(6), temperature)
        assert found.value == pytest.approx(weights / (1 + weights), rel=1e-4)
        assert found.chance == pytest.approx(1 - 1 / k)
    suggested = suggested_temperature(batch)
    assert suggested == pytest.approx((first - rest) / math.log(9 * (k - 1)), rel=1e-4)
    assert saturation(batch, np.arange(6), suggested).value == pytest.approx(0.1, rel=1e-3)


def test_a_loss_that_looks_solved_at_the_published_temperature():
    z = np.linalg.qr(gaussian(50, 8, 2))[0].transpose(0, 2, 1)
    two_of_three = np.stack([z[:, 0], z[:, 0], z[:, 1]], axis=1)
    assert saturation(batch_of(two_of_three), np.arange(50), 0.05).value < 1e-3


def test_orthonormal_modalities_are_at_chance_and_suggest_nothing():
    batch = batch_of(np.tile(np.eye(3), (4, 1, 1)))
    assert saturation(batch, np.arange(4), 0.1).value == pytest.approx(2 / 3, abs=1e-4)
    assert suggested_temperature(batch) is None or suggested_temperature(batch) < 1e-3


@pytest.mark.parametrize("sign_aware", [False, True])
def test_gradients_are_those_of_autograd_along_the_sphere(sign_aware):
    vectors = unit(torch.from_numpy(gaussian(12, 4, 7))).requires_grad_()
    present = torch.ones(12, 4, dtype=torch.bool)
    present[:5, 2] = False
    found = spectrum(vectors, present, sign_aware=sign_aware)
    (gradient,) = torch.autograd.grad(found.singular_values[:, 0].sum(), vectors)
    lengths = tangent_gradients(found, present, sign_aware=sign_aware)
    torch.testing.assert_close(lengths, gradient.norm(dim=2), rtol=1e-8, atol=1e-10)


def test_an_orthogonal_modality_gets_no_gradient_and_equal_ones_share_alike():
    z = np.linalg.qr(gaussian(40, 9, 3))[0].transpose(0, 2, 1)
    near = z[:, 0] + 0.5 * z[:, 1]
    shares = gradient_shares(batch_of(np.stack([z[:, 0], near, z[:, 2]], 1)), np.arange(40), sign_aware=False)
    assert shares[2].value == pytest.approx(0, abs=1e-6)
    assert shares[0].value == pytest.approx(0.5, abs=1e-6)
    alike = gradient_shares(batch_of(gaussian(2000, 4, 16)), np.arange(2000), sign_aware=True)
    assert sum(one.value for one in alike) == pytest.approx(1)
    for one in alike:
        assert one.ci[0] <= one.chance + 0.01
        assert one.ci[1] >= one.chance - 0.01
    same = gradient_shares(batch_of(np.repeat(gaussian(9, 1, 5), 3, axis=1)), np.arange(9), sign_aware=False)
    assert {one.status for one in same} == {"collapsed"}


def test_negatives_are_those_of_the_softmax_in_loops():
    x, y = (unit(torch.from_numpy(gaussian(30, 5, seed=s))).numpy() for s in (0, 1))
    present = np.ones((30, 2), bool)
    present[:4, 1] = False
    found = negatives(batch_of(np.stack([x, y], 1), present), np.arange(30), 0.2)
    x, y = x[4:], y[4:]
    effective, positive = [], []
    for queries, targets in ((x, y), (y, x)):
        for i in range(26):
            scores = np.exp(targets @ queries[i] / 0.2)
            positive.append(scores[i] / scores.sum())
            p = np.delete(scores, i) / np.delete(scores, i).sum()
            effective.append(np.exp(-(p * np.log(p)).sum()))
    assert found.effective.value == pytest.approx(np.mean(effective), rel=1e-4)
    assert found.positive.value == pytest.approx(np.mean(positive), rel=1e-4)
    assert found.effective.n == 26


def test_temperature_moves_the_negatives_from_one_to_all():
    batch = batch_of(gaussian(200, 2, 64))
    few, many = (negatives(batch, np.arange(200), t).effective.value for t in (0.005, 10.0))
    assert few < 2
    assert many == pytest.approx(199, rel=0.01)
    assert negatives(batch_of(gaussian(2, 2, 4)), np.arange(2), 0.1) is None
