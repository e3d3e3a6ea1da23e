"""How many vectors of a modality are another instance's: rates of mispairing from scores with a known null.

The scores of ``consensus`` have a known null: every vector beside the consensus of every other instance is a
mispaired instance. There are several nulls, of vectors swapped with those of any instance, and with those of an
instance like theirs (one of their class, say), whose scores are higher. The low scores are a mixture of the nulls and
of partners that score as low: those that are mostly noise, in heavy tails. The weights have the largest Poisson
likelihood; the rate is the weight of the nulls, with an interval of the profile likelihood.

How many noisy partners to expect is known from the other modalities, where there are two or more: noise is in all of
them. Besides, a tail stands for them: the score of a noisy partner is a mispaired one moved up, by much or by little,
so that such partners get rarer from the median of a null downwards and mispaired vectors do not. To a null of density
f belongs a tail 2 F f that falls with its distribution function F. Without either this is Storey's estimate (JRSS-B
64, 2002) for a known null, which counts noisy partners as mispaired. With two modalities the density of partners has
one hump (``PartnerMixture``), and where that does not show below theirs, a tail stands for noisy partners too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pmrl_cli.array_types import Array
from pmrl_cli.diagnosis.mispair_partners import Held, PartnerMixture, hold
from pmrl_cli.stats.consensus import EDGES
from pmrl_cli.stats.statistic import Statistic, clustered_error

__all__ = ["NEAR_FLOOR", "Counts", "Mixture", "Rates", "consensus_auc", "mispair_rates", "places_of", "weights_of"]

Counts = npt.NDArray[np.int64]

NEAR_FLOOR = 0.01
"""Lower end from which the rate of swaps with like instances is reported."""

_SEPARATING_AUC = 0.95
"""Below it partners overlap with the mispaired too much, and the rate is only what it is at most: P(the score of a
partner exceeds that of a vector swapped with any, or with a like instance)."""

_SEPARATING_BESIDE = 0.99
"""The same, of a rate that rests on what the other modalities say of noisy partners. Clean heavy tails of 16 columns
reach .987."""

_MORE_THAN_NOISE = 0.1
"""Lower end of such a rate that no difference in noise makes: on clean heavy tails it is .03 at most."""

_OVERLAPPING_AUC, _MORE_THAN_HUMP, _MORE_THAN_TAIL = 0.9, 0.2, 0.05
"""Where partners overlap a little more, a rate is reported from these lower ends: of one hump, and of a tail. On
clean data they are .087 and .02 at most."""

_NOISIER = 0.75
"""Quantile, over the other modalities, of the noisy partners that are expected of one: more than of most."""

_TOP, _TOP_BESIDE, _CELLS = 0.5, 0.9, 24
"""Scores up to these quantiles of the higher null are looked at, of two modalities and of more, where the others say
what partners score there; the cells end at so many quantiles of each null."""

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


Weight = tuple[float, float, float]
"""A weight and its interval."""


class Mixture(NamedTuple):
    """Low scores as a mixture.

    Args:
        counts: (c,) instances in cells of the score.
        parts: (p, c) mass of each component in each cell: nulls first, then their tails.
        levels: (c + 1,) distribution function of the first null at the ends of the cells.
        known: (c,) instances that are expected besides, or 0.
    """

    counts: Array
    parts: Array
    levels: Array
    known: Array | float = 0.0

    @classmethod
    def of(cls, score: Array, mispaired: Counts, top: float = _TOP) -> Mixture:
        """Return that of scores up to a quantile of the higher null.

        Args:
            score: (s,) of the instances that count.
            mispaired: (nulls, bins) counts over ``EDGES``.
            top: the quantile.
        """
        below = np.cumsum(mispaired, axis=1) / mispaired.sum(1, keepdims=True)
        levels = np.arange(1, _CELLS + 1) / _CELLS
        cuts = np.unique([np.searchsorted(one, levels[levels <= top]) + 1 for one in below])
        below = np.concatenate([np.zeros((len(below), 1)), below], axis=1)[:, np.concatenate([[0], cuts])]
        parts = np.concatenate([np.diff(below, axis=1), np.diff(below**2, axis=1)])
        counts = np.histogram(score, EDGES[np.concatenate([[0], cuts])])[0]
        return cls(counts.astype(np.float64), parts, below[0])

    def candidates(self, held: Sequence[int], design: float) -> Array:
        """Return (g,) weights of some components together, finer towards 0, beyond which no interval ends."""
        most = 4 * float(self.counts.sum() / self.parts[list(held)].sum(1).min()) + 20 * design
        return most * np.linspace(0, 1, _GRID) ** 2

    def fit(self, held: Sequence[Held] = ()) -> tuple[Array, Array]:
        """Return (g, p) weights of largest likelihood, and (g,) that: of the free fit, and of those that are held.

        By expectation maximization, which keeps weights at 0 or above.
        """
        totals = np.maximum(self.parts.sum(1), 1e-12)
        rows = 1 + sum(len(one.values) for one in held)
        weights = np.tile(max(1.0, self.counts.sum()) / len(totals) / totals, (rows, 1))
        for _ in range(_STEPS):
            hold(weights, held)
            expected = np.maximum(weights @ self.parts + self.known, 1e-12)
            weights = weights * ((self.counts / expected) @ self.parts.T) / totals
        hold(weights, held)
        expected = np.maximum(weights @ self.parts + self.known, 1e-12)
        return weights, (self.counts * np.log(expected) - expected).sum(1)


def weights_of(
    mixture: Mixture | PartnerMixture, wanted: Sequence[Sequence[int]], design: float
) -> tuple[Array, list[Weight]]:
    """Return the (p,) weights of all components, and of some together with 95 % intervals by profile likelihood.

    Args:
        mixture: of low scores.
        wanted: which components together, one or more each.
        design: by how much the variance of counts exceeds a Poisson count's.
    """
    held = [Held(parts, mixture.candidates(parts, design)) for parts in wanted]
    weights, reached = mixture.fit(held)
    found = []
    start = 1
    for parts, values in held:
        value = float(weights[0, list(parts)].sum())
        own = reached[start : start + len(values)]
        start += len(values)
        inside = values[2 * (max(float(reached[0]), float(own.max())) - own) <= _CHI_SQUARE_95 * design]
        found.append((value, float(inside.min(initial=value)), float(inside.max(initial=value))))
    return weights[0], found


class Rates(NamedTuple):
    """How many vectors of a modality are another instance's.

    Args:
        total: share of them.
        near: of those swapped with an instance like theirs.
        like: (nulls - 1,) how the near ones divide into the nulls, from wide to narrow; sums to 1.
    """

    total: Statistic
    near: Statistic
    like: Array


def mispair_rates(
    score: Array, suspected: npt.NDArray[np.bool_], mispaired: Counts, groups: npt.NDArray[np.int64]
) -> tuple[Rates, ...]:
    """Return the rates of all swaps and of those with instances like them, of each modality.

    Swaps with like instances look like partners that are mostly noise. With three modalities or more the others say
    how many of those to expect: what their own random swaps leave of their low scores. With two, the scores are of
    the pair, and the shape of the partners' density says it.

    Args:
        score: (n, K) of the instances, NaN where a modality or all others are absent.
        suspected: (n, K) which instances count for a modality.
        mispaired: (nulls, K, bins) counts over ``EDGES``.
        groups: (n,).
    """
    modalities = score.shape[1]
    if modalities == 2:
        mispaired = np.repeat(mispaired.sum(1, keepdims=True), 2, axis=1)  # either may have been swapped
    scores = []
    for m in range(modalities):
        usable = ~np.isnan(score[:, m])
        many = usable.sum() >= 2 and bool(mispaired[:, m].sum(1).all())
        own = _Scores.of(score[usable, m], suspected[usable, m], mispaired[:, m], groups[usable]) if many else None
        scores.append(own)
    if modalities == 2 and scores[0] is not None:
        return (scores[0].of_two(),) * 2
    known = [one for one in scores if one is not None]
    found = []
    for m, own in enumerate(scores):
        n = int((~np.isnan(score[:, m])).sum())
        others = [one for one in known if one is not own]
        if own is None:
            found.append(Rates(Statistic.unknown(n=n), Statistic.unknown(n=n), narrowest(len(mispaired) - 1)))
        else:
            found.append(own.beside(others) if others else own.of_two())
    return tuple(found)


def narrowest(nulls: int) -> Array:
    """Return (nulls,) shares that are all of the last."""
    return np.concatenate([np.zeros(nulls - 1), np.ones(1)])


class _Humped(NamedTuple):
    """What is found if the density of partners has one hump.

    Args:
        total: instances swapped with any or like ones.
        near: with like ones.
        weights: (nulls,) of each null.
        apart: P(a partner scores higher than a vector swapped with one of its nearest).
    """

    total: Weight
    near: Weight
    weights: Array
    apart: float

    def clear(self, n: int, sure: float) -> bool:
        """Whether partners are clear of the nulls, or nearly and swaps are more than their hump can make up."""
        return self.apart >= sure or (self.apart >= _OVERLAPPING_AUC and self.total[1] > _MORE_THAN_HUMP * n)

    def rates(self, n: int) -> Rates:
        """Return the rates among n instances."""
        alike = self.near[0] > self.weights[0] and self.near[1] / n > NEAR_FLOOR
        like = self.weights[1:]
        shares = like / like.sum() if like.sum() > 0 else narrowest(len(like))
        return Rates(_statistic(self.total, n, known=True), _statistic(self.near, n, known=alike), shares)


@dataclass(frozen=True)
class _Scores:
    """The scores of one modality.

    Args:
        n: instances.
        score: (s,) of those that count.
        mispaired: (nulls, bins).
        design: by how much the variance of counts exceeds a Poisson count's.
        alone: instances swapped with any, if none were swapped with like ones.
        aucs: (nulls,) P(an instance scores higher than a mispaired vector).
        crossed: (nulls, nulls) P(a vector mispaired in the second way scores higher than one in the first).
    """

    n: int
    score: Array
    mispaired: Counts
    design: float
    alone: Weight
    aucs: Array
    crossed: Array

    @classmethod
    def of(
        cls, score: Array, suspected: npt.NDArray[np.bool_], mispaired: Counts, groups: npt.NDArray[np.int64]
    ) -> _Scores:
        """Take the (n,) finite scores of a modality, (n,) which of them count, and (nulls, bins) mispaired ones."""
        density = mispaired / mispaired.sum(1, keepdims=True)
        below = np.cumsum(density, axis=1) - density / 2
        low = suspected & (score < EDGES[int(np.searchsorted(np.cumsum(density[0]), _TOP)) + 1])
        design = _design_effect(low, groups)
        whole = Mixture.of(score[suspected], mispaired[[0, -1]])
        single = whole._replace(parts=whole.parts[::2])
        _, (alone,) = weights_of(single, [[0]], design)
        aucs = np.array([consensus_auc(score, one, groups).value or 0.0 for one in mispaired])
        return cls(len(score), score[suspected], mispaired, design, alone, aucs, below @ density.T)

    def noisy(self, levels: Array) -> Array:
        """Return (c,) instances between levels of the null that are not explained by swaps with any instance."""
        places = _places(self.score, self.mispaired[0])
        counts = np.histogram(places, np.maximum.accumulate(levels))[0]
        return np.maximum(counts - self.alone[0] * np.diff(levels), 0.0)

    def beside(self, others: Sequence[_Scores]) -> Rates:
        """Return the rates of all swaps and of those with like instances, of three modalities or more.

        The one hump of partners says them where it is clear of every null. Elsewhere noisy partners are as the
        others', and a rate is at most what the hump leaves room for.
        """
        humped = self._humped()
        sure = _SEPARATING_AUC if humped.total[1] > _MORE_THAN_NOISE * self.n else _SEPARATING_BESIDE
        if humped.clear(self.n, sure):
            return humped.rates(self.n)
        found = self._as_others(others)
        low, high = found.total.ci or (0.0, 1.0)
        most = max(high, min(1.0, humped.total[2] / self.n))
        return found._replace(total=replace(found.total, ci=(low, most)))

    def _as_others(self, others: Sequence[_Scores]) -> Rates:
        """Return the rates, noisy partners being as those of the others."""
        mixture = Mixture.of(self.score, self.mispaired[[0, -1]], _TOP_BESIDE)
        known = np.quantile([one.noisy(mixture.levels) * self.n / one.n for one in others], _NOISIER, axis=0)
        mixture = mixture._replace(parts=mixture.parts[[0, 1, 3]], known=known)
        # What is expected is a count too.
        design = self.design * (1 + min(1.0, float(known.sum()) / max(1.0, float(mixture.counts.sum()))))
        _, (total, near) = weights_of(mixture, [[0, 1], [1]], design)
        like = narrowest(len(self.mispaired) - 1) * near[0] / self.n
        apart = self._apart(0, np.append(max(0.0, total[0] - near[0]) / self.n, like))
        # Where partners overlap with the null, or the others are mispaired as often and take it for noise, only the
        # lowest scores are to be trusted.
        least = _SEPARATING_BESIDE if total[1] < _MORE_THAN_NOISE * self.n else _SEPARATING_AUC
        if self.alone[0] > total[0] or apart < least:
            return self._at_random(near)
        return Rates(
            _statistic(total, self.n, known=True),
            _statistic(near, self.n, known=near[1] / self.n > NEAR_FLOOR),
            narrowest(len(self.mispaired) - 1),
        )

    def of_two(self) -> Rates:
        """Return the rates of all swaps and of those with like ones, the density of partners having one hump.

        Where partners overlap with vectors swapped with their nearest, those are no hump of their own.
        """
        humped = self._humped()
        if humped.clear(self.n, _SEPARATING_AUC):
            return humped.rates(self.n)
        # Of two modalities no third spoils the consensus, as an opposed one does.
        sure = _OVERLAPPING_AUC if self.alone[1] > _MORE_THAN_TAIL * self.n else _SEPARATING_AUC
        return self._at_random(humped.near, sure)

    def _humped(self) -> _Humped:
        """Return what is found if the density of partners has one hump."""
        mixture = PartnerMixture.of(self.score, self.mispaired)
        nulls = range(len(mixture.parts))
        weights, (total, near) = weights_of(mixture, [nulls, nulls[1:]], self.design)
        return _Humped(total, near, weights, self._apart(-1, weights / self.n))

    def _at_random(self, near: Weight, sure: float = _SEPARATING_AUC) -> Rates:
        """Return the rates where no swaps with like instances are told apart."""
        rates = np.append(self.alone[0] / self.n, np.zeros(len(self.mispaired) - 1))
        known = self._apart(0, rates) >= sure
        total = _statistic(self.alone if known else (self._most(),) * 3, self.n, known=known)
        return Rates(total, _statistic(near, self.n, known=False), narrowest(len(self.mispaired) - 1))

    def _most(self) -> float:
        """Return how many are mispaired at most: as many score above the median of near swaps as below, or fewer."""
        half = EDGES[int(np.searchsorted(np.cumsum(self.mispaired[-1]), self.mispaired[-1].sum() / 2)) + 1]
        low = float((self.score < half).sum())
        return 2 * (low + 2 * float(np.sqrt(low + 1)))

    def _apart(self, null: int, rates: Array) -> float:
        """Return P(a partner scores higher than a vector mispaired in one way) at (nulls,) rates of every way."""
        clean = 1 - float(rates.sum())
        return float(self.aucs[null] - self.crossed[null] @ rates) / clean if clean > 0 else 0.0


def _design_effect(low: npt.NDArray[np.bool_], groups: npt.NDArray[np.int64]) -> float:
    """Return by how much the variance of a count exceeds a binomial one, at least 1: mispaired groups come whole."""
    n, share = len(low), float(low.mean())
    error = clustered_error(low.astype(np.float64), groups)
    if error is None or not 0 < share < 1:
        return 1.0
    return max(1.0, error**2 / (share * (1 - share) / n))


def _statistic(found: Weight, n: int, *, known: bool) -> Statistic:
    """Return the rate of a weight and its interval; an upper bound where partners overlap with the mispaired."""
    rate, low, high = (min(1.0, one / n) for one in found)
    if not known:
        return Statistic(rate, chance=0.0, ci=(0.0, high), ci_method="profile_likelihood", n=n, status="upper_bound")
    return Statistic(rate, chance=0.0, ci=(low, high), ci_method="profile_likelihood", n=n)
