"""Statistics of pairs of modalities in one space: values from all instances, errors from the reservoir."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from pmrl_cli.diagnosis.alignment import summary_statistic
from pmrl_cli.diagnosis.clouds import scaled
from pmrl_cli.diagnosis.gap import bures, covariance_gap
from pmrl_cli.diagnosis.joint import half_of
from pmrl_cli.diagnosis.numbers import Columns
from pmrl_cli.diagnosis.pairing import adjusted_cosine_error, pairing_moments
from pmrl_cli.diagnosis.reservoir import Chosen
from pmrl_cli.diagnosis.state import State
from pmrl_cli.diagnosis.sums import MomentTotals
from pmrl_cli.stats.instances import COLLAPSED, InstanceStatistics, pairs_of
from pmrl_cli.stats.statistic import Statistic, clustered_error, group_means

__all__ = [
    "gap_share",
    "paired_cosines",
    "pairing",
    "shape_gap",
    "unit_loading",
]

Array = npt.NDArray[np.float64]
Groups = npt.NDArray[np.int64]


def _means(state: State, a: int, b: int) -> tuple[Array, Array]:
    """Return the mean vectors of two modalities over the instances that have both."""
    count = state.counts[a, b]
    return state.sums[a][b] / count, state.sums[b][a] / count


def _both(chosen: Chosen, a: int, b: int) -> tuple[Array, Array, Groups]:
    kept = chosen.present[:, [a, b]].all(1)
    first, second = (chosen.vectors[m][kept].astype(np.float64) for m in (a, b))
    return first, second, chosen.groups[kept]


def paired_cosines(state: State, chosen: Chosen, a: int, b: int) -> dict[str, Statistic]:
    """Return the mean cosine of partners beside mu_a . mu_b, and adjusted by it."""
    column = Columns(len(state.header.names)).cosine[pairs_of(len(state.header.names)).index((a, b))]
    mean_a, mean_b = _means(state, a, b)
    mean, null, count = state.summaries.mean(column), float(mean_a @ mean_b), int(state.counts[a, b])
    cosine = Statistic.normal(
        mean, state.summaries.mean_error(column), within=(-1, 1), chance=null, n=count, null="closed_form"
    )
    if 1 - null < COLLAPSED:
        return {"cos": cosine, "adj": Statistic.unknown("collapsed", chance=0.0, n=count, null="closed_form")}
    first, second, groups = _both(chosen, a, b)
    error = adjusted_cosine_error(first, second, groups)
    adjusted = Statistic.normal(
        1 - (1 - mean) / (1 - null),
        scaled(error, len(first), count),
        within=(-math.inf, 1),
        chance=0.0,
        n=count,
        null="closed_form",
    )
    return {"cos": cosine, "adj": adjusted}


def pairing(chosen: Chosen, a: int, b: int) -> Statistic:
    """Return how many permutation deviations the mean inner product of partners lies above its permutation mean.

    Groups are what is independent: the unit of the permutation is a group's mean vector. About N(0, 1) when
    unpaired; None with fewer than three units or where one side does not vary. The interval is that of the data,
    the permutation deviation held fixed.
    """
    first, second, groups = _both(chosen, a, b)
    first, second = group_means(first, groups), group_means(second, groups)
    if len(first) < 3:
        return Statistic.unknown(chance=0.0, n=len(first), null="permutation")
    mean, variance = pairing_moments(first, second)
    if variance <= 1e-18:  # the square of float32 rounding: one side is a single point
        return Statistic.unknown("collapsed", chance=0.0, n=len(first), null="permutation")
    products = (first * second).sum(1)
    shift = (first - first.mean(0)) @ second.mean(0) + (second - second.mean(0)) @ first.mean(0)
    error = clustered_error(products - shift, np.arange(len(first)))
    deviation = math.sqrt(variance)
    z = (float(products.mean()) - mean) / deviation
    return Statistic.normal(
        z,
        None if error is None else error / deviation,
        chance=0.0,
        p=math.erfc(abs(z) / math.sqrt(2)),
        n=len(first),
        null="permutation",
    )


def gap_share(state: State, chosen: Chosen, a: int, b: int) -> dict[str, Statistic]:
    """Return the distance of the two means, and its square as a share of the mean squared distance of partners."""
    column = Columns(len(state.header.names)).cosine[pairs_of(len(state.header.names)).index((a, b))]
    count = int(state.counts[a, b])
    mean_a, mean_b = _means(state, a, b)
    between = mean_a - mean_b
    gap, distance = float(between @ between), 2 - 2 * state.summaries.mean(column)
    first, second, groups = _both(chosen, a, b)
    of_gap = 2 * ((first - second) @ between)
    # The error of a length is that of its square over twice the length: none can be said at zero.
    error = None if gap <= COLLAPSED else clustered_error(of_gap / (2 * math.sqrt(gap)), groups)
    centroid = Statistic.normal(
        math.sqrt(gap),
        scaled(error, len(first), count),
        within=(0, 2),
        chance=0.0,
        n=count,
    )
    if distance <= COLLAPSED:
        return {"centroid": centroid, "gap_share": Statistic.unknown("collapsed", n=count)}
    share = gap / distance
    of_distance = 2 - 2 * (first * second).sum(1)
    error = clustered_error((of_gap - share * of_distance) / distance, groups)
    return {
        "centroid": centroid,
        "gap_share": Statistic.normal(
            share,
            scaled(error, len(first), count),
            within=(0, 1),
            chance=1 / count,
            n=count,
            null="closed_form",
        ),
    }


def shape_gap(state: State, chosen: Chosen, totals: tuple[MomentTotals, ...], a: int, b: int) -> Statistic:
    """Return the covariance gap of two modalities of one width, from the joint moments.

    Value and chance are those of ``covariance_gap``; its error, of the reservoir, is scaled to the instances here.

    Args:
        state: of all instances.
        chosen: the reservoir.
        totals: moments of both halves together, of the first and of the second.
        a: first modality.
        b: second.
    """
    first, second, groups = _both(chosen, a, b)
    small = covariance_gap(first, second, half_of(chosen.keys)[chosen.present[:, [a, b]].all(1)] == 0, groups)
    n = int(min(totals[0].counts[a, a], totals[0].counts[b, b]))
    if small.value is None or n <= len(first) or min(int(one.counts[m, m]) for one in totals for m in (a, b)) < 2:
        return small
    covariances = [totals[0].covariance(m, m) for m in (a, b)]
    total = sum(float(np.trace(one)) for one in covariances)
    chance = []
    for m in (a, b):
        halves = [one.covariance(m, m) for one in totals[1:]]
        chance.append(bures(*halves) / sum(float(np.trace(one)) for one in halves) / 2)
    return Statistic.normal(
        bures(*covariances) / total,
        scaled(small.se, len(first), n),
        within=(0, 1),
        chance=float(np.mean(chance)),
        n=n,
    )


def unit_loading(state: State, null: InstanceStatistics, m: int) -> Statistic:
    """Return the mean loading of a modality on the leading direction, times sqrt(k_i)."""
    k = len(state.header.names)
    return summary_statistic(state.summaries, Columns(k).load[m], null.loading[:, m], math.sqrt(k))
