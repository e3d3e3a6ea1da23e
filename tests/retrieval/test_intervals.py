import numpy as np
import pytest

from pmrl_cli.retrieval.intervals import Sample, interval, resample, weighted_median


def test_a_weighted_median_is_the_median_of_the_repeated_values():
    generator = np.random.default_rng(0)
    values = np.sort(generator.integers(0, 9, size=11)).astype(float)
    weights = generator.integers(0, 3, size=(200, 11))
    weights[weights.sum(1) == 0] = 1
    expected = [np.median(np.repeat(values, w)) for w in weights]
    np.testing.assert_array_equal(weighted_median(values, weights.astype(float)), expected)
    assert np.isnan(weighted_median(values, np.zeros((1, 11)))[0])


def test_the_bootstrap_spreads_as_the_standard_error_of_the_group_means_says():
    generator = np.random.default_rng(1)
    means = generator.normal(size=400)
    groups = np.repeat(np.arange(400), 5)
    values = means[groups]  # five equal answers per group: 400 pieces of information, not 2000
    drawn = resample({"a->b": Sample(groups, {"x": values}, {"y": values})}, 400, draws=2000, seed=0)
    assert drawn["a->b", "x"].std() == pytest.approx(means.std() / 20, rel=0.05)
    assert drawn["a->b", "x"].mean() == pytest.approx(values.mean(), abs=0.005)
    assert drawn["a->b", "y"].mean() == pytest.approx(np.median(values), abs=0.03)


def test_intervals_cover_the_truth_at_group_level_and_not_at_instance_level():
    covered = {"group": 0, "instance": 0}
    for seed in range(200):
        generator = np.random.default_rng(seed)
        hit = (generator.random(60) < 0.4).astype(float)
        groups = np.repeat(np.arange(60), 5)
        for unit, ids in (("group", groups), ("instance", np.arange(300))):
            drawn = resample({"q": Sample(ids, {"R@1": hit[groups]})}, ids.max() + 1, draws=300, seed=seed)
            low, high = interval(drawn["q", "R@1"])
            covered[unit] += low <= 0.4 <= high
    assert covered["group"] >= 184  # 92 %
    assert covered["instance"] <= 150  # pretending that copies are independent: about 60 %


def test_directions_share_the_draws_so_that_the_interval_of_their_mean_is_right():
    groups = np.arange(100)
    values = np.random.default_rng(0).normal(size=100)
    drawn = resample(
        {"a->b": Sample(groups, {"x": values}), "b->a": Sample(groups, {"x": -values})}, 100, draws=150, seed=0
    )
    np.testing.assert_allclose(drawn["a->b", "x"] + drawn["b->a", "x"], 0, atol=1e-12)


def test_a_draw_without_a_query_of_the_direction_does_not_count():
    sample = Sample(np.array([0]), {"x": np.array([3.0])})
    drawn = resample({"q": sample}, 3, draws=400, seed=0)["q", "x"]
    assert set(drawn[~np.isnan(drawn)]) == {3.0}
    assert 50 < np.isnan(drawn).sum() < 200  # (2/3)^3 of them
    assert interval(drawn) == (3.0, 3.0)
    assert interval(drawn[:50]) is None
