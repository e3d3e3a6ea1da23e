"""How many vectors of a modality are another instance's: rates of mispairing from scores with a known null.

The scores of ``consensus`` have a known null: every vector beside the consensus of every other instance is a
mispaired instance. There are two nulls, of vectors swapped with those of any instance, and with those of an instance
like theirs (one of their class, say), whose scores are higher.

A partner may score as low as a mispaired vector too: one that is mostly noise, in heavy tails. Its score is a
mispaired one moved up, by much or by little, so that such partners get rarer from the median of a null downwards and
mispaired vectors do not. The low scores are therefore a mixture of each null, of density f, and of a tail 2 F f that
falls with its distribution function F. The weights have the largest Poisson likelihood; the rates are those of the
nulls, with intervals of the profile likelihood. Without tails this is Storey's estimate (JRSS-B 64, 2002) for a known
null, which counts noisy partners as mispaired.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pmrl_cli.stats.consensus import EDGES
from pmrl_cli.stats.statistic import Statistic, clustered_error

__all__ = ["NEAR_FLOOR", "Counts", "Mixture", "consensus_auc", "mispair_rates", "places_of"]

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

NEAR_FLOOR = 0.01
"""Lower end, beyond the median of the other modalities, from which the rate of swaps with like instances is
reported, and instances are suspects."""

_SEPARATING_AUC = 0.95
"""Below it partners overlap with the mispaired too much, and the rate is only what it is at most: P(the score of a
partner exceeds that of a vector swapped with any, or with a like instance)."""

_TOP, _CELLS = 0.5, 24
"""Scores up to the median of the higher null are looked at; the cells end at so many quantiles of each null."""

_STEPS, _GRID = 300, 100
_CHI_SQUARE_95 = 3.841459


def places_of(score: Array, mispaired: Counts) -> Array:
    """Return (R, K) the probability that a mispaired vector agrees less than that of an instance; NaN where unusable.

    Its mean over instances is the consensus AUC; mispaired instances have 1/2.

    Args:
        score: (R, K) of the instances, NaN where unusable.
        mispaired: (K, bins) counts over ``EDGES``, of swaps with any instance.
    """
    places = np.full(score.shape, np.nan)
    for m, counts in enumerate(mispaired):
        usable = ~np.isnan(score[:, m])
        if counts.sum():
            places[usable, m] = _places(score[usable, m], counts)
    return places


def _places(score: Array, mispaired: Counts) -> Array:
    below = (np.cumsum(mispaired) - mispaired / 2) / mispaired.sum()  # ties within a bin count half
    place: Array = below[np.clip(np.searchsorted(EDGES, score, "right") - 1, 0, len(mispaired) - 1)]
    return place


def consensus_auc(score: Array, mispaired: Counts, groups: npt.NDArray[np.int64]) -> Statistic:
    """Return the probability that an instance's score exceeds a mispaired one: 0.5 by chance, 1 if all do.

    The interval is over the instances (or groups), the mispaired scores held fixed.

    Args:
        score: (B,) of one modality, NaN where unusable.
        mispaired: (bins,) counts over ``EDGES``.
        groups: (B,).
    """
    usable = ~np.isnan(score)
    if usable.sum() < 2 or mispaired.sum() == 0:
        return Statistic.unknown(chance=0.5, n=int(usable.sum()), null="closed_form")
    place = _places(score[usable], mispaired)
    error = clustered_error(place, groups[usable])
    n = int(usable.sum())
    return Statistic.normal(float(place.mean()), error, within=(0, 1), chance=0.5, n=n, null="closed_form")


_Weight = tuple[float, float, float]
"""A weight and its interval."""


class Mixture(NamedTuple):
    """Low scores as a mixture.

    Args:
        counts: (c,) instances in cells of the score.
        parts: (p, c) mass of each component in each cell: nulls first, then their tails.
    """

    counts: Array
    parts: Array

    @classmethod
    def of(cls, score: Array, mispaired: Counts) -> Mixture:
        """Return that of scores up to the median of the higher null.

        Args:
            score: (s,) of the instances that count.
            mispaired: (nulls, bins) counts over ``EDGES``.
        """
        below = np.cumsum(mispaired, axis=1) / mispaired.sum(1, keepdims=True)
        levels = np.arange(1, _CELLS + 1) / _CELLS
        cuts = np.unique([np.searchsorted(one, levels[levels <= _TOP]) + 1 for one in below])
        below = np.concatenate([np.zeros((len(below), 1)), below], axis=1)[:, np.concatenate([[0], cuts])]
        parts = np.concatenate([np.diff(below, axis=1), np.diff(below**2, axis=1)])
        counts = np.histogram(score, EDGES[np.concatenate([[0], cuts])])[0]
        return cls(counts.astype(np.float64), parts)

    def fit(self, fixed: int | None = None, values: Array | None = None) -> tuple[Array, Array]:
        """Return (g, p) weights of largest likelihood, and (g,) that; one weight may be given (g,) values.

        By expectation maximization, which keeps weights at 0 or above.
        """
        rows = 1 if values is None else len(values)
        totals = np.maximum(self.parts.sum(1), 1e-12)
        weights = np.tile(max(1.0, self.counts.sum()) / len(totals) / totals, (rows, 1))
        for _ in range(_STEPS):
            if values is not None:
                weights[:, fixed] = values
            expected = np.maximum(weights @ self.parts, 1e-12)
            weights = weights * ((self.counts / expected) @ self.parts.T) / totals
        if values is not None:
            weights[:, fixed] = values
        expected = np.maximum(weights @ self.parts, 1e-12)
        return weights, (self.counts * np.log(expected) - expected).sum(1)

    def weight(self, part: int, design: float) -> _Weight:
        """Return the weight of a component and its 95 % interval by profile likelihood.

        Args:
            part: which.
            design: by how much the variance of counts exceeds a Poisson count's.
        """
        weights, best = self.fit()
        value = float(weights[0, part])
        # Finer towards 0. Beyond four times the count and 20 no interval ends.
        values = (4 * self.counts.sum() / self.parts[part].sum() + 20 * design) * np.linspace(0, 1, _GRID) ** 2
        _, reached = self.fit(part, values)
        inside = values[2 * (max(float(best[0]), float(reached.max())) - reached) <= _CHI_SQUARE_95 * design]
        return value, min(value, float(inside.min(initial=value))), max(value, float(inside.max(initial=value)))


def mispair_rates(
    score: Array, suspected: npt.NDArray[np.bool_], mispaired: Counts, groups: npt.NDArray[np.int64]
) -> tuple[tuple[Statistic, ...], tuple[Statistic, ...]]:
    """Return the rates of swaps with any instance and with one like it, of each modality.

    Swaps with like instances look like partners that are mostly noise. With three modalities or more the others say
    how many of those there are: a rate counts as far as it exceeds their median. With two, a tail stands for them.

    Args:
        score: (n, K) of the instances, NaN where a modality or all others are absent.
        suspected: (n, K) which instances count for a modality.
        mispaired: (2, K, bins) counts over ``EDGES``.
        groups: (n,).
    """
    modalities = score.shape[1]
    fits = []
    for m in range(modalities):
        usable = ~np.isnan(score[:, m])
        own = (score[usable, m], suspected[usable, m], mispaired[:, m], groups[usable])
        fits.append(_RateFit.of(*own, controlled=modalities > 2))
    near_rates = np.array([0.0 if fit is None else fit.near[0] / fit.n for fit in fits])
    found = []
    for m, fit in enumerate(fits):
        if fit is None:
            n = int((~np.isnan(score[:, m])).sum())
            found.append((Statistic.unknown(n=n), Statistic.unknown(n=n)))
        else:
            usual = float(np.median(np.delete(near_rates, m))) if modalities > 2 else 0.0
            found.append(fit.statistics(usual))
    return tuple(one for one, _ in found), tuple(near for _, near in found)


@dataclass(frozen=True)
class _RateFit:
    """The mixture of one modality.

    Args:
        n: instances.
        alone: instances swapped with any, if none were swapped with like ones.
        swapped: instances swapped with any.
        near: instances swapped with like ones.
        aucs: P(an instance scores higher than a vector swapped with any, with a like instance).
        crossed: P(a vector swapped with a like instance scores higher than one swapped with any).
    """

    n: int
    alone: _Weight
    swapped: _Weight
    near: _Weight
    aucs: tuple[float, float]
    crossed: float

    @classmethod
    def of(
        cls,
        score: Array,
        suspected: npt.NDArray[np.bool_],
        mispaired: Counts,
        groups: npt.NDArray[np.int64],
        *,
        controlled: bool,
    ) -> _RateFit | None:
        """Fit the (n,) scores of a modality; None where there are too few.

        Args:
            score: finite.
            suspected: (n,) which count.
            mispaired: (2, bins).
            groups: (n,).
            controlled: whether other modalities say how many partners are noisy, so that no tail of the null of
                swaps with any instance is needed beside swaps with like ones.
        """
        n = len(score)
        if n < 2 or not mispaired.sum(1).all():
            return None
        density = mispaired / mispaired.sum(1, keepdims=True)
        below = np.cumsum(density, axis=1)
        low = suspected & (score < EDGES[int(np.searchsorted(below[0], _TOP)) + 1])
        design = _design_effect(low, groups)
        whole = Mixture.of(score[suspected], mispaired)
        alone = Mixture(whole.counts, whole.parts[[0, 2]])
        both = Mixture(whole.counts, whole.parts[[0, 1, 3]]) if controlled else whole
        first, second = (consensus_auc(score, one, groups).value or 0.0 for one in mispaired)
        return cls(
            n,
            alone.weight(0, design),
            both.weight(0, design),
            both.weight(1, design),
            (first, second),
            float(density[1] @ (below[0] - density[0] / 2)),
        )

    def statistics(self, usual: float) -> tuple[Statistic, Statistic]:
        """Return the rates of swaps with any instance and with one like it.

        Args:
            usual: rate of the second kind that noise gives rise to.
        """
        rate, near = self.swapped[0] / self.n, self.near[0] / self.n
        clean = 1 - rate - near
        separated = (self.aucs[1] - rate * (1 - self.crossed) - near / 2) / clean if clean > 0 else 0.0
        near_known = separated >= _SEPARATING_AUC and self.near[1] / self.n > usual + NEAR_FLOOR and near > rate
        found = self.swapped if near_known else self.alone
        rate, near = found[0] / self.n, near if near_known else 0.0
        clean = 1 - rate - near
        separated = (self.aucs[0] - rate / 2 - near * self.crossed) / clean if clean > 0 else 0.0
        return (
            _statistic(found, self.n, known=separated >= _SEPARATING_AUC),
            _statistic(self.near, self.n, known=near_known),
        )


def _design_effect(low: npt.NDArray[np.bool_], groups: npt.NDArray[np.int64]) -> float:
    """Return by how much the variance of a count exceeds a binomial one, at least 1: mispaired groups come whole."""
    n, share = len(low), float(low.mean())
    error = clustered_error(low.astype(np.float64), groups)
    if error is None or not 0 < share < 1:
        return 1.0
    return max(1.0, error**2 / (share * (1 - share) / n))


def _statistic(found: _Weight, n: int, *, known: bool) -> Statistic:
    """Return the rate of a weight and its interval; an upper bound where partners overlap with the mispaired."""
    rate, low, high = (min(1.0, one / n) for one in found)
    if not known:
        return Statistic(rate, chance=0.0, ci=(0.0, high), ci_method="profile_likelihood", n=n, status="upper_bound")
    return Statistic(rate, chance=0.0, ci=(low, high), ci_method="profile_likelihood", n=n)
