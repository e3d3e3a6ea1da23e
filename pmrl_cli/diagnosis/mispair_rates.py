"""How many vectors of a modality are another instance's: rates of mispairing from scores with a known null.

The scores of ``consensus`` have a known null: every vector beside the consensus of every other instance is a
mispaired instance. What share of the instances score as low as those says how many are mispaired.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pmrl_cli.stats.consensus import EDGES, Reference
from pmrl_cli.stats.statistic import Statistic, clustered_error

__all__ = ["NEAR_FLOOR", "Counts", "consensus_auc", "mispair_rates", "places_of", "poisson_interval"]

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

NEAR_FLOOR = 0.01
"""Lower end from which the rate of swaps with like instances is reported, and instances are suspects."""

_NULL_SHARE = 0.25
"""Share of mispaired scores below the threshold that counts them: low enough that few partners lie below it."""

_SEPARATING_AUC, _SEPARATING_NEAR_AUC = 0.95, 0.98
"""Below it partners lie under the threshold too, and the rate is only what it is at most. Of swaps with like
instances more is asked: their scores come nearer to those of partners, and a few of these would make a rate."""

_NORMAL_95 = 1.959964


def poisson_interval(count: float) -> tuple[float, float]:
    """Return the 95 % interval of the mean of a Poisson count (Byar's approximation to the exact one).

    Source: Breslow and Day, "Statistical Methods in Cancer Research II", IARC 1987, p. 69; within 2 % of the exact
        interval from a count of 1 on (tested).
    """
    low = 0.0
    if count > 0:
        low = max(0.0, count * (1 - 1 / (9 * count) - _NORMAL_95 / (3 * np.sqrt(count))) ** 3)
    above = count + 1
    return float(low), float(above * (1 - 1 / (9 * above) + _NORMAL_95 / (3 * np.sqrt(above))) ** 3)


def places_of(reference: Reference) -> Array:
    """Return (R, K) the probability that a mispaired vector agrees less than that of an instance; NaN where unusable.

    Its mean over instances is the consensus AUC; mispaired instances have 1/2.
    """
    score, mispaired = reference.agreement().score, reference.mispaired()[0]
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


def mispair_rates(
    score: Array, suspected: npt.NDArray[np.bool_], mispaired: Counts, groups: npt.NDArray[np.int64]
) -> tuple[Statistic, Statistic]:
    """Return the rates of swaps with any instance and with one like it, of one modality.

    Args:
        score: (n,) of the instances.
        suspected: (n,) which count for this modality.
        mispaired: (2, bins) counts over ``EDGES``.
        groups: (n,).
    """
    n = len(score)
    if n < 2 or not mispaired.sum(1).all():
        return Statistic.unknown(n=n), Statistic.unknown(n=n)
    below = np.cumsum(mispaired, axis=1) / mispaired.sum(1, keepdims=True)
    edges = [int(np.searchsorted(one, _NULL_SHARE)) for one in below]
    shares = below[:, edges].T  # [threshold, null]: of the null below the threshold
    low = [suspected & (score < EDGES[edge + 1]) for edge in edges]
    counts = np.array([one.sum() for one in low]) / n
    apart = shares[0, 0] * shares[1, 1] - shares[0, 1] * shares[1, 0]
    found = np.array([counts[0] / shares[0, 0], 0.0])
    if apart > _NULL_SHARE**2 / 10:  # else the two nulls are one
        found = np.linalg.solve(shares, counts)
    if found[0] < 0:
        found = np.array([0.0, counts[1] / shares[1, 1]])
    aucs = [consensus_auc(score, one, groups).value or 0.0 for one in mispaired]
    density = mispaired / mispaired.sum(1, keepdims=True)
    # P(a near-missed score beats a mispaired one), and a mispaired one a near-missed.
    crossed = float(density[1] @ (below[0] - density[0] / 2))
    most = _count_interval(low[0], groups)[1] / n / shares[0, 0]
    near = _near_rate(found, most, aucs[1] - found[0] * (1 - crossed), low[1], shares[1], groups)
    others = (near.value or 0.0) if near.status == "ok" else 0.0
    rate = min(1.0, max(0.0, (counts[0] - others * shares[0, 1]) / shares[0, 0]))
    clean = 1 - rate - others
    clean_auc = (aucs[0] - rate / 2 - others * crossed) / clean if clean > 0 else 0.0
    bounds = _count_interval(low[0], groups)
    ci = tuple(min(1.0, max(0.0, (bound / n - others * shares[0, 1]) / shares[0, 0])) for bound in bounds)
    return _rate_statistic(rate, (ci[0], ci[1]), n, known=clean_auc >= _SEPARATING_AUC), near


def _near_rate(
    found: Array, most: float, auc: float, low: npt.NDArray[np.bool_], shares: Array, groups: npt.NDArray[np.int64]
) -> Statistic:
    """Return the rate of swaps with an instance like it.

    Args:
        found: both rates as the counts give them.
        most: upper end of the rate of swaps with any instance.
        auc: P(score > near-missed score), less what swaps with any instance add to it.
        low: (n,) which lie below the threshold.
        shares: of both nulls below it.
        groups: (n,).
    """
    n, rate = len(low), float(min(1.0, max(0.0, found[1])))
    clean = 1 - float(found[0]) - rate
    clean_auc = (auc - rate / 2) / clean if clean > 0 else 0.0
    bounds = _count_interval(low, groups)
    others = (most, float(found[0]))
    ci = tuple(
        min(1.0, max(0.0, (bound / n - one * shares[0]) / shares[1]))
        for bound, one in zip(bounds, others, strict=True)
    )
    # Few of them beside more of the other kind are the same instances, counted by the other null.
    known = clean_auc >= _SEPARATING_NEAR_AUC and ci[0] > NEAR_FLOOR and rate > found[0]
    return _rate_statistic(rate, (ci[0], ci[1]), n, known=bool(known))


def _count_interval(low: npt.NDArray[np.bool_], groups: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Return the 95 % interval of a count; mispaired groups come as a whole: it is of a Poisson count of groups."""
    n, count = len(low), int(low.sum())
    design = 1.0
    error = clustered_error(low.astype(np.float64), groups)
    if error is not None and 0 < count < n:
        design = max(1.0, error**2 / (count / n * (1 - count / n) / n))
    bounds = poisson_interval(count / design)
    return bounds[0] * design, bounds[1] * design


def _rate_statistic(rate: float, ci: tuple[float, float], n: int, *, known: bool) -> Statistic:
    """Return a rate; an upper bound where partners lie under the threshold too."""
    ci = min(rate, ci[0]), max(rate, ci[1])
    if not known:
        return Statistic(rate, chance=0.0, ci=(0.0, ci[1]), ci_method="poisson", n=n, status="upper_bound")
    return Statistic(rate, chance=0.0, ci=ci, ci_method="poisson", n=n)
