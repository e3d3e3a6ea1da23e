"""Covariance gap, mixed galleries and hubness: closed forms, chance, what was planted."""

import math

import numpy as np
import pytest
import torch

from pmrl_cli.diagnosis.statistics.gap import Cloud, bures, covariance_gap, mixed_gallery_penalty
from pmrl_cli.diagnosis.statistics.hubness import hubness, occurrences
from pmrl_cli.retrieval.batches import Batch
from pmrl_cli.retrieval.partners import mixed_ranks, partner_ranks


def gaussian(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def tensor(x):
    return torch.from_numpy(unit(x).astype(np.float32))


def halves(n):
    return np.arange(n) % 2 == 0


def penalty(x, y, gallery=100):
    n = len(x)
    batch = Batch(np.arange(n), torch.stack([tensor(x), tensor(y)], 1), torch.ones(n, 2, dtype=torch.bool))
    pure = partner_ranks(batch)
    mixed = mixed_ranks(batch, pure)
    return mixed_gallery_penalty([(pure[way], mixed[way]) for way in pure], np.arange(n), gallery=gallery)


def gap(x, y):
    return covariance_gap(*(Cloud(side, halves(len(x))) for side in (x, y)), np.arange(len(x)))


def test_the_bures_distance_has_its_closed_forms():
    z = gaussian(9, 5)
    a = z.T @ z
    assert bures(a, a) == pytest.approx(0, abs=1e-9)
    assert bures(a, 4 * a) == pytest.approx(np.trace(a), rel=1e-9)  # (2 - 1)^2 tr A
    assert bures(np.diag([4.0, 1, 0]), np.diag([1.0, 9, 4])) == pytest.approx(1 + 4 + 4)  # of commuting ones
    other = gaussian(9, 5, seed=1)
    b = other.T @ other
    assert bures(a, b) == pytest.approx(bures(b, a), rel=1e-9)
    turn = np.linalg.qr(gaussian(5, 5))[0]
    assert bures(turn.T @ a @ turn, turn.T @ b @ turn) == pytest.approx(bures(a, b), rel=1e-9)


def test_clouds_of_one_shape_have_the_gap_of_chance_and_orthogonal_ones_the_largest():
    n, d = 400, 32
    found = [gap(unit(gaussian(n, d, seed=s)), unit(gaussian(n, d, seed=s + 50))) for s in range(10)]
    assert np.mean([one.value for one in found]) == pytest.approx(d / (4 * n), rel=0.1)
    assert np.mean([one.chance for one in found]) == pytest.approx(d / (4 * n), rel=0.1)
    x, y = np.zeros((2, n, d))
    x[:, :16], y[:, 16:] = gaussian(n, 16), gaussian(n, 16, seed=1)
    assert gap(unit(x), unit(y)).value == pytest.approx(1)
    assert gap(unit(x) + 7, unit(x)).value == pytest.approx(0, abs=1e-9)  # an offset is no gap of shapes


def test_few_vectors_of_many_columns_have_the_gap_of_their_span():
    x, y = unit(gaussian(30, 8)), unit(gaussian(30, 8, seed=1) * np.arange(1, 9))
    wide = [np.pad(z, ((0, 0), (0, 200))) for z in (x, y)]
    assert gap(*wide).value == pytest.approx(gap(x, y).value, abs=1e-6)
    assert gap(np.ones((30, 4)), np.ones((30, 4))).status == "collapsed"


def test_the_error_of_the_covariance_gap_is_its_spread_over_data_sets():
    scale = np.linspace(0.3, 2, 8)
    found = [
        gap(unit(gaussian(600, 8, seed=2 * s)), unit(gaussian(600, 8, seed=2 * s + 1) * scale)) for s in range(80)
    ]
    assert np.mean([one.se for one in found]) == pytest.approx(np.std([one.value for one in found]), rel=0.2)


def test_an_offset_costs_everything_in_a_mixed_gallery_and_centred_pairs_nothing():
    z = gaussian(300, 32)
    x, y = z + 0.5 * gaussian(300, 32, seed=1), z + 0.5 * gaussian(300, 32, seed=2)
    assert penalty(x, y).value == pytest.approx(0, abs=0.02)
    apart = penalty(x + 3, y - 3)
    u, v = unit(x + 3), unit(y - 3)
    assert ((u @ u.T - 2 * np.eye(300)).max(1) > (u * v).sum(1)).all()  # its own modality is nearer to everyone
    assert apart.value > 0.65  # all there was
    assert apart.ci[0] > 0.6
    unrelated = penalty(gaussian(300, 32), gaussian(300, 32, seed=1))
    assert unrelated.value == pytest.approx(0, abs=0.01)


def test_the_penalty_is_that_of_ranking_all_candidates():
    x, y = gaussian(40, 6) + 0.3, gaussian(40, 6, seed=1)
    y = x + 0.4 * y
    u, v = unit(x), unit(y)
    lost = []
    for queries, targets in ((u, v), (v, u)):
        for i in range(40):
            own = queries[i] @ targets[i]
            other = np.delete(targets @ queries[i], i)
            same = np.delete(queries @ queries[i], i)
            lost.append(float(other.max() < own) - float(max(other.max(), same.max()) < own))
    mixed = penalty(x, y, gallery=40).value
    # The gallery of 40 is all of one modality, and 40 of the 79 candidates of both.
    assert 0 < mixed < np.mean(lost)
    exact = []
    for queries, targets in ((u, v), (v, u)):
        for i in range(40):
            own = queries[i] @ targets[i]
            above_other = int((np.delete(targets @ queries[i], i) > own).sum())
            above = above_other + int((np.delete(queries @ queries[i], i) > own).sum())
            exact.append((above_other == 0) - math.comb(78 - above, 39) / math.comb(78, 39))
    assert mixed == pytest.approx(np.mean(exact), rel=1e-6)


def test_occurrences_are_those_of_sorted_scores():
    x, y = tensor(gaussian(60, 5)), tensor(gaussian(50, 5, seed=1))
    expected = np.bincount(np.argsort(-(x @ y.T).numpy(), axis=1)[:, :7].ravel(), minlength=50)
    np.testing.assert_array_equal(occurrences(x, y, 7), expected)


def test_isotropic_data_are_near_chance_and_a_cone_makes_hubs():
    x, y = gaussian(2000, 64), gaussian(2000, 64, seed=1)
    even = hubness(tensor(x), tensor(y), np.arange(2000))
    assert even.skewness.chance == pytest.approx(1 / math.sqrt(10), rel=0.01)
    assert even.robin_hood.chance == pytest.approx(0.12505, abs=0.0005)
    assert even.antihubs.chance == pytest.approx(math.exp(-10), rel=0.05)
    assert even.counts.sum() == 2000
    away = np.zeros(64)
    away[0] = 6
    hubs = hubness(tensor(x + away), tensor(y - away), np.arange(2000))
    assert hubs.skewness.value > even.skewness.value + 0.5
    assert hubs.robin_hood.value > even.robin_hood.value
    assert hubs.skewness.ci[0] > even.skewness.chance


def test_the_chance_of_hubness_is_that_of_neighbours_at_random():
    generator = np.random.default_rng(0)
    drawn = np.stack([generator.permutation(100)[:10] for _ in range(100 * 200)]).reshape(200, 1000)
    counts = np.stack([np.bincount(one, minlength=100) for one in drawn])
    standard = (counts - 10) / counts.std(1, keepdims=True)
    chance = hubness(tensor(gaussian(100, 8)), tensor(gaussian(100, 8)), np.arange(100))
    assert chance.skewness.chance == pytest.approx((standard**3).mean(), abs=0.02)
    assert chance.robin_hood.chance == pytest.approx(np.abs(counts - 10).mean() / 20, abs=0.002)
    assert hubness(tensor(gaussian(39, 8)), tensor(gaussian(39, 8)), np.arange(39)) is None


def test_one_hub_for_all_is_as_uneven_as_can_be():
    candidates = np.tile(gaussian(1, 8), (40, 1)) * -1
    candidates[:10] *= -1
    found = hubness(tensor(np.tile(gaussian(1, 8), (40, 1))), tensor(candidates), np.arange(40))
    assert found.antihubs.value == 0.75
    assert found.robin_hood.value == pytest.approx(0.75)
