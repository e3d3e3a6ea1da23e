"""The cross-fitted probe: against canonical correlations, chance, rotation and what was planted."""

import numpy as np
import pytest

from pmrl_cli.diagnosis.statistics.linear import LinearMoments, fit_linear, sides_of
from pmrl_cli.diagnosis.statistics.probe import _standardised, probe, third_of


def gaussian(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def turn(d, seed):
    return np.linalg.qr(gaussian(d, d, seed=seed))[0]


def halves(n):
    return np.arange(n) % 2 == 0


def shared(n, correlations, seed=0, own=(8, 5)):
    """Two modalities with these canonical correlations, each behind a random rotation."""
    rho = np.array(correlations)
    latent = gaussian(n, len(rho), seed=seed)
    other = rho * latent + np.sqrt(1 - rho**2) * gaussian(n, len(rho), seed=seed + 1)
    private = [gaussian(n, d, seed=seed + 2 + i) for i, d in enumerate(own)]
    sides = [np.concatenate([z, p], axis=1) for z, p in zip((latent, other), private, strict=True)]
    return [s @ turn(s.shape[1], 50 + i) for i, s in enumerate(sides)]


def test_without_a_ridge_it_is_canonical_correlation_analysis():
    x, y = shared(500, [0.9, 0.5])
    adapter = LinearMoments.of(sides_of([x, y]), np.ones((500, 2), bool)).adapter(1e-9)
    bases = [np.linalg.qr(z - z.mean(0))[0] for z in (x, y)]
    expected = np.linalg.svd(bases[0].T @ bases[1], compute_uv=False)
    found = np.multiply(*_standardised(adapter.directions(sides_of([x, y])))).mean(0)
    np.testing.assert_allclose(found, expected[:7], atol=1e-4)
    np.testing.assert_allclose(adapter.weights, expected[:7], atol=1e-4)


def test_it_counts_the_dimensions_and_bits_that_are_shared():
    planted = [0.95, 0.9, 0.8, 0.6]
    found = probe(sides_of(shared(4000, planted)), halves(4000), np.arange(4000))
    assert found.shared_dimensions.value == pytest.approx(np.square(planted).sum(), rel=0.03)
    assert found.bits.value == pytest.approx(-np.log2(1 - np.square(planted)).sum() / 2, rel=0.03)
    np.testing.assert_allclose(found.held_out[:4], planted, atol=0.04)
    assert found.shared_dimensions.ci[0] < np.square(planted).sum() < found.shared_dimensions.ci[1]
    assert found.hits.value > 0.1  # chance .005


@pytest.mark.parametrize(("n", "d"), [(200, 20), (100, 130)])
def test_unrelated_modalities_are_at_chance_and_the_intervals_cover_it(n, d):
    found = [
        probe(sides_of([gaussian(n, d, seed=s), gaussian(n, d, seed=s + 500)]), halves(n), np.arange(n))
        for s in range(40)
    ]
    for name in ("shared_dimensions", "bits", "hits"):
        ones = [getattr(one, name) for one in found]
        spread = np.std([one.value for one in ones])
        assert np.mean([one.value for one in ones]) == pytest.approx(ones[0].chance, abs=4 * spread / 10)
        if name != "hits":
            assert np.mean([one.ci[0] <= 0 <= one.ci[1] for one in ones]) >= 0.85
    assert np.mean(np.abs([one.fitted[0] for one in found])) > 0.4  # where it was fitted, chance looks like a lot


def test_a_rotation_of_either_modality_is_undone():
    x, y = shared(600, [0.95] * 6)
    straight = probe(sides_of([x, y]), halves(600), np.arange(600))
    mapped = probe(sides_of([3 * x @ turn(14, 9) + 5, y]), halves(600), np.arange(600))
    assert mapped.hits.value == pytest.approx(straight.hits.value, abs=0.02)
    assert straight.hits.ci[0] > 0.3


def test_groups_stay_together_and_widen_the_interval():
    x, y = (np.repeat(z, 6, axis=0) for z in shared(100, [0.9] * 4))
    groups = np.repeat(np.arange(100), 6)
    noisy = [z + 0.3 * gaussian(*z.shape, seed=i) for i, z in enumerate((x, y))]
    half = groups % 2 == 0
    grouped, alone = probe(sides_of(noisy), half, groups), probe(sides_of(noisy), half, np.arange(600))
    assert grouped.shared_dimensions.se > 1.5 * alone.shared_dimensions.se
    chosen = third_of(groups, 0)
    assert {chosen[groups == g].sum() for g in range(100)} == {0, 6}
    assert 0.2 < chosen.mean() < 0.45


def test_missing_modalities_take_part_with_what_they_have():
    x, y = shared(600, [0.95] * 5)
    z = x @ gaussian(13, 9, seed=3)
    present = np.ones((600, 3), bool)
    present[:200, 2] = False
    adapter = fit_linear(sides_of([x, y, np.where(present[:, [2]], z, 0)]), present, third_of(np.arange(600), 0))
    batch = adapter.embed(sides_of([x, y, z]), present)
    assert (batch.embeddings[:200, 2] == 0).all()
    cosine = (batch.embeddings[200:, 0] * batch.embeddings[200:, 2]).sum(1)
    assert cosine.mean() > 0.8


def test_a_handful_has_no_probe_and_a_constant_modality_is_at_chance():
    assert probe(sides_of([gaussian(39, 3), gaussian(39, 3)]), halves(39), np.arange(39)) is None
    found = probe(sides_of([np.ones((200, 3)), gaussian(200, 3)]), halves(200), np.arange(200))
    assert found.shared_dimensions.value == 0
    assert found.hits.value == pytest.approx(1 / found.gallery)
