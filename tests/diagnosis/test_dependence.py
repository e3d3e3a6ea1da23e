"""CKA and shared neighbours: enumeration, type-I error, invariance, coverage."""

from itertools import permutations

import numpy as np
import pytest

from pmrl_cli.diagnosis.statistics.dependence import (
    Margin,
    Scatter,
    permutation_moments,
    shared_neighbours,
    shared_neighbours_moments,
)
from pmrl_cli.diagnosis.statistics.dependence import dependence as dependence_between


def gaussian(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def dependence(first, second, groups):
    return dependence_between(Margin.of(first, groups), Margin.of(second, groups))


def related(n, seed, *, noise=1.0):
    latent = gaussian(n, 6, seed=3 * seed)
    mix = gaussian(6, 9, seed=1000), gaussian(6, 5, seed=1001)
    return tuple(unit(latent @ m + noise * gaussian(n, m.shape[1], seed=3 * seed + 1 + i)) for i, m in enumerate(mix))


def test_the_moments_of_cka_are_those_of_all_720_orders_of_six():
    x, y = gaussian(6, 4, seed=1) + 1, gaussian(6, 3, seed=2)
    values = [Scatter.of(x, y[list(order)]).cka() for order in permutations(range(6))]
    mean, variance = permutation_moments(Scatter.of(x, y))
    assert mean == pytest.approx(np.mean(values), rel=1e-12)
    assert variance == pytest.approx(np.var(values), rel=1e-12)


def test_cka_is_that_of_the_gram_matrices():
    x, y = gaussian(30, 50), gaussian(30, 4, seed=1)
    centring = np.eye(30) - 1 / 30
    first, second = (centring @ (z @ z.T) @ centring for z in (x, y))
    expected = (first * second).sum() / np.sqrt((first**2).sum() * (second**2).sum())
    assert Scatter.of(x, y).cka() == pytest.approx(expected, rel=1e-12)
    assert Scatter.of(x, 3 * x @ np.linalg.qr(gaussian(50, 50))[0]).cka() == pytest.approx(1)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_moments_of_shared_neighbours_are_those_of_all_5040_orders_of_seven(k):
    generator = np.random.default_rng(k)
    first, second = (
        np.stack([generator.permutation(np.delete(np.arange(7), i))[:k] for i in range(7)]) for _ in range(2)
    )
    shares = []
    sets = [set(row) for row in first.tolist()]
    for order in permutations(range(7)):
        moved = {order[i]: {order[j] for j in row} for i, row in enumerate(second.tolist())}
        shares.append(sum(len(sets[i] & moved[i]) for i in range(7)) / (7 * k))
    mean, variance = shared_neighbours_moments(first, second)
    assert mean == pytest.approx(np.mean(shares), rel=1e-12)
    assert variance == pytest.approx(np.var(shares), rel=1e-12)


@pytest.mark.parametrize(("n", "d"), [(80, 5), (50, 80)])
@pytest.mark.parametrize("draw", ["normal", "t3"])
def test_unrelated_modalities_are_called_dependent_as_often_as_the_level_says(n, d, draw):
    generator = np.random.default_rng(n)
    size = (400, n, d)
    first, second = (
        unit((generator.normal(size=size) if draw == "normal" else generator.standard_t(3, size=size)) + 0.3)
        for _ in range(2)
    )
    found = [dependence(x, y, np.arange(n)) for x, y in zip(first, second, strict=True)]
    for p in ([one.cka_z.p for one in found], [one.neighbours_adjusted.p for one in found]):
        assert 0.03 <= np.mean(np.array(p) < 0.05) <= 0.075
    assert max(one.cka_z.value for one in found) < 4.5
    assert np.mean([one.cka_adjusted.value for one in found]) == pytest.approx(0, abs=0.005)
    assert np.mean([one.neighbours_adjusted.value for one in found]) == pytest.approx(0, abs=0.005)


def test_rotating_either_modality_changes_nothing_and_identical_ones_reach_one():
    x, y = related(120, 0)
    straight = dependence(x, y, np.arange(120))
    turned = dependence(x @ np.linalg.qr(gaussian(9, 9))[0], y @ np.linalg.qr(gaussian(5, 5))[0], np.arange(120))
    wide = dependence(np.pad(x, ((0, 0), (0, 300))), y, np.arange(120))  # more columns than rows
    for other in (turned, wide):
        assert other.cka_adjusted.value == pytest.approx(straight.cka_adjusted.value, rel=1e-9)
        assert other.cka_adjusted.se == pytest.approx(straight.cka_adjusted.se, rel=1e-9)
        assert other.cka_z.value == pytest.approx(straight.cka_z.value, rel=1e-9)
        assert other.neighbours_adjusted.value == pytest.approx(straight.neighbours_adjusted.value, abs=1e-3)
    same = dependence(x, x, np.arange(120))
    assert same.cka_adjusted.value == pytest.approx(1)
    assert same.neighbours_adjusted.value == pytest.approx(1)
    assert same.cka_adjusted.ci[1] <= 1


def test_the_interval_of_cka_covers_the_value_of_many_instances():
    truth = dependence(*related(4000, 999), np.arange(4000)).cka_adjusted.value
    found = [dependence(*related(300, seed), np.arange(300)).cka_adjusted for seed in range(100)]
    assert np.mean([one.ci[0] <= truth <= one.ci[1] for one in found]) >= 0.92


def test_groups_are_what_is_permuted():
    x, y = (np.repeat(unit(gaussian(40, 6, seed=s)), 10, axis=0) for s in (0, 1))
    groups = np.repeat(np.arange(40), 10)
    alone, grouped = dependence(x, y, np.arange(400)), dependence(x, y, groups)
    assert alone.cka_z.value > 10  # copies of few pairs, taken for many
    assert abs(grouped.cka_z.value) < 3
    assert grouped.cka_z.n == 40


def test_points_and_handfuls_have_no_claims():
    x = unit(gaussian(40, 5))
    point = dependence(unit(np.ones((40, 5))), x, np.arange(40))
    assert point.cka_z.status == "collapsed"
    few = dependence(x[:5], x[:5], np.arange(5))
    assert few.cka_z.status == "n_too_small"
    assert shared_neighbours(np.zeros((3, 0), int), np.zeros((3, 0), int)).status == "n_too_small"
