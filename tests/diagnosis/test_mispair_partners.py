"""Partners whose density has one hump, beside vectors swapped with any and with like instances."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from scipy.optimize import minimize
from scipy.stats import norm

from pmrl_cli.data.dataset import Dataset, Features
from pmrl_cli.diagnosis.mispair_partners import PartnerMixture
from pmrl_cli.diagnosis.mispair_rates import weights_of
from pmrl_cli.diagnosis.mispairing import Mispairs
from pmrl_cli.retrieval.batches import read_batch
from pmrl_cli.stats.consensus import EDGES


def null_of(mean):
    """Counts of a normal null of deviation .2 over the bins, a million in all."""
    return np.round(1e6 * np.diff(norm.cdf(EDGES, mean, 0.2))).astype(np.int64)


NULLS = np.stack([null_of(-0.6), null_of(-0.3)])


def scores(any_swaps, like_swaps, seed=0):
    """Scores of 1,000 partners with a tail of its own, and of swaps."""
    generator = np.random.default_rng(seed)
    partners = 0.6 + 0.08 * generator.normal(size=1000) - generator.exponential(0.1, 1000)
    swaps = generator.normal(-0.6, 0.2, any_swaps), generator.normal(-0.3, 0.2, like_swaps)
    return np.concatenate([partners, *swaps])


@pytest.mark.parametrize("swaps", [(60, 0), (150, 200)])
def test_the_likelihood_is_the_largest_of_its_formula_and_the_weights_are_those_planted(swaps):
    mixture = PartnerMixture.of(scores(*swaps), NULLS)
    weights, reached = mixture.fit()

    def loss(values, shape):
        """Minus the Poisson log-likelihood, from the formula, cell by cell."""
        total = 0.0
        for c, count in enumerate(mixture.counts):
            log_density = values[2] + values[3] * shape[c, 1] + values[4] * shape[c, 2]
            partners = np.exp(min(30.0, log_density + mixture.width[c]))
            expected = max(1e-12, values[0] * mixture.parts[0, c] + values[1] * mixture.parts[1, c] + partners)
            total += expected - count * np.log(expected)
        return total

    bounds = [(0, None), (0, None), (None, None), (0, None), (0, None)]
    start = [*np.maximum(weights[0], 1.0), np.log(mixture.counts[-1] + 1) - mixture.width[-1], 3.0, 0.5]
    best = min(minimize(loss, start, (shape,), "L-BFGS-B", bounds=bounds).fun for shape in mixture.shape[::2])
    assert -reached[0] <= best + 0.3
    for part, planted in enumerate(swaps):
        value, low, high = weights_of(mixture, [[part]], 1.0)[1][0]
        assert low <= planted <= high or abs(value - planted) < 0.005 * 1000
        assert low <= value <= high


def test_partners_never_have_a_second_hump():
    mixture = PartnerMixture.of(scores(200, 200), NULLS)
    for shape in mixture.shape:
        slopes = np.diff(shape @ np.array([2.0, 1.5, 0.7])) / np.diff(shape[:, 1])
        assert (np.diff(slopes) < 1e-9).all()  # concave, as for all weights at or above 0


def test_all_scores_equal_or_none_above_the_nulls_give_a_number():
    for score in (np.full(300, 0.5), np.full(300, -0.9), np.zeros(2)):
        mixture = PartnerMixture.of(score, NULLS)
        value, low, high = weights_of(mixture, [[0, 1]], 1.0)[1][0]
        assert np.isfinite([value, low, high]).all()
        assert 0 <= low <= value <= high


def classes_swapped(share, *, tail=False, n=600, d=48):
    """Judge two modalities of one latent; a share of the second is swapped within 12 slices of the first direction.

    Columns fall as the root of their rank; heavy tails are those of t with 3 degrees of freedom.
    """
    generator = np.random.default_rng(3)

    def draw():
        drawn = generator.normal(size=(n, d)) / np.sqrt(np.arange(1, d + 1))
        return drawn / np.sqrt(generator.chisquare(3, size=(n, 1)) / 3) if tail else drawn

    latent = draw()
    a, b = latent + 0.6 * draw(), latent + 0.6 * draw()
    slices = np.argsort(np.argsort(latent[:, 0])) * 12 // n
    moved = b.copy()
    for row in generator.permutation(n)[: round(share * n)]:
        others = np.flatnonzero((slices == slices[row]) & (np.arange(n) != row))
        moved[row] = b[generator.choice(others)]
    features = tuple(Features(name, x.astype(np.float32)) for name, x in (("a", a), ("b", moved)))
    ids = pa.array([str(i) for i in range(n)], pa.large_string())
    data = Dataset(ids, features, np.ones((n, 2), dtype=bool), {})
    return Mispairs.of(read_batch(data, np.arange(n)), data.names, np.arange(n)).model


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_swaps_within_classes_of_two_modalities_are_found(share):
    """Regression: they scored between the nulls, and were taken for noisy partners."""
    model = classes_swapped(share)
    rate, near = model.rates[0], model.near_rates[0]
    assert rate.status == "ok"
    low, high = rate.ci
    assert low <= share <= high or share == low == 0
    assert (low > 0.01) == (share > 0)
    assert (near.status == "ok") == (share > 0)


def test_heavy_tails_of_two_modalities_are_no_swaps_within_classes():
    model = classes_swapped(0.0, tail=True)
    assert model.near_rates[0].status == "upper_bound"
    assert model.rates[0].ci[0] <= 0.005
