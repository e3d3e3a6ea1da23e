import numpy as np
import pytest

from pmrl_cli.diagnosis.state.second_moments import JointMoments, half_of


def accumulate(vectors, present, keys, *, limit, cuts=()):
    moments = JointMoments([v.shape[1] for v in vectors], limit=limit, seed=0)
    for piece in np.split(np.arange(len(keys)), cuts):
        moments.add([v[piece] for v in vectors], present[piece], keys[piece])
    return moments


def instances(n=400, dims=(3, 5), seed=0, missing=0.3):
    generator = np.random.default_rng(seed)
    present = generator.random((n, len(dims))) >= missing
    vectors = [generator.normal(size=(n, d)).astype(np.float32) * present[:, [m]] for m, d in enumerate(dims)]
    return vectors, present, generator.integers(2**64, size=n, dtype=np.uint64)


def test_covariances_are_numpy_s_over_the_instances_that_have_both():
    vectors, present, keys = instances()
    moments = accumulate(vectors, present, keys, limit=1000)
    for half in (None, 0, 1):
        kept = present.all(1) & (True if half is None else half_of(keys) == half)
        a, b = (v[kept].astype(np.float64) for v in vectors)
        found = moments.totals(half)
        assert found.counts[0, 1] == kept.sum()
        np.testing.assert_allclose(found.sums[1, :3], a.sum(0), atol=1e-9)
        np.testing.assert_allclose(found.covariance(0, 1), (a - a.mean(0)).T @ (b - b.mean(0)) / len(a), atol=1e-12)
        alone = vectors[1][present[:, 1] & (True if half is None else half_of(keys) == half)].astype(np.float64)
        np.testing.assert_allclose(found.covariance(1, 1), np.cov(alone.T, bias=True), atol=1e-12)


@pytest.mark.parametrize("limit", [5, 60, 200, 399])
def test_the_sample_is_bounded_and_follows_from_the_instances_alone(limit):
    vectors, present, keys = instances()
    straight = accumulate(vectors, present, keys, limit=limit)
    assert straight.count <= limit
    order = np.random.default_rng(1).permutation(len(keys))
    moved = accumulate([v[order] for v in vectors], present[order], keys[order], limit=limit, cuts=[7, 50, 333])
    first, second = (
        accumulate([v[piece] for v in vectors], present[piece], keys[piece], limit=limit)
        for piece in np.split(order, [150])
    )
    first.merge(second)
    pruned = JointMoments([v.shape[1] for v in vectors], limit=limit, seed=0)
    pruned.prune_levels(keys)
    pruned.add(vectors, present, keys)
    for other in (moved, first, pruned):
        assert other.count == straight.count
        for mine, theirs in zip(straight.totals(), other.totals(), strict=True):
            np.testing.assert_allclose(theirs, mine, rtol=1e-10, atol=1e-10)


def test_the_sample_is_a_quarter_a_level_and_halves_are_even():
    _, _, keys = instances(n=40_000, dims=(1, 1))
    ones = [np.ones((len(keys), 1), dtype=np.float32)] * 2
    moments = accumulate(ones, np.ones((len(keys), 2), dtype=bool), keys, limit=15_000)
    assert moments.count == pytest.approx(10_000, rel=0.05)
    assert moments.totals(0).counts[0, 0] == pytest.approx(moments.count / 2, rel=0.05)


def test_one_group_larger_than_the_limit_is_kept():
    keys = np.full(50, 12345, dtype=np.uint64)
    vectors, present, _ = instances(n=50)
    assert accumulate(vectors, present, keys, limit=10).count == 50


def test_modalities_too_wide_together_are_projected_and_keep_their_inner_products():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(40, 4000)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    moments = JointMoments([4000, 4000], limit=100, seed=0)
    assert moments.projected
    assert sum(moments.dims) <= 3072
    moments.add([x, x], np.ones((40, 2), dtype=bool), generator.integers(2**64, size=40, dtype=np.uint64))
    totals = moments.totals()
    own = totals.covariance(0, 0)
    np.testing.assert_allclose(totals.covariance(0, 1), own, atol=1e-12)  # one projection for both
    assert np.trace(own) == pytest.approx(np.var(x, axis=0).sum(), rel=0.02)
