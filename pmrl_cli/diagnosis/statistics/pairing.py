"""Mean cosine and inner product of partners beside their permutation moments, in closed form."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from pmrl_cli.array_types import Array
from pmrl_cli.diagnosis.evidence import Evidence
from pmrl_cli.diagnosis.state.summaries import Columns
from pmrl_cli.diagnosis.statistics.declared import statistic
from pmrl_cli.stats.instances import COLLAPSED, pairs_of
from pmrl_cli.stats.statistic import Statistic, clustered_error, group_means, rescaled

__all__ = ["adjusted_cosine_error", "paired_cosines", "pairing", "pairing_moments", "pairing_z"]


def pairing_moments(first: Array, second: Array) -> tuple[float, float]:
    """Return mean and variance of the mean inner product over all permutations of one side.

    Args:
        first: (n, d).
        second: (n, d), n at least 2.

    Source: the mean is mu_a . mu_b, the variance tr(S_aa S_bb) / (n^2 (n - 1)) with S the centred scatter: the
        permutation moments of a linear statistic (Hoeffding 1951), exact.
    """
    count = len(first)
    mean = first.mean(0) @ second.mean(0)
    centred_first, centred_second = first - first.mean(0), second - second.mean(0)
    scatter = np.vdot(centred_first.T @ centred_first, centred_second.T @ centred_second)
    return float(mean), float(scatter / (count**2 * (count - 1)))


def pairing_z(first: Array, second: Array) -> float | None:
    """Return how many permutation standard deviations the mean inner product of the pairs lies above its mean.

    About N(0, 1) when unpaired. None with fewer than three pairs or where one side does not vary.

    Args:
        first: (n, d).
        second: (n, d), row i paired with row i.
    """
    if len(first) < 3:
        return None
    mean, variance = pairing_moments(first, second)
    if variance <= 1e-18:  # the square of float32 rounding: one side is a single point
        return None
    return float(((first * second).sum(1).mean() - mean) / np.sqrt(variance))


def adjusted_cosine_error(first: Array, second: Array, groups: npt.NDArray[np.int64]) -> float | None:
    """Return the standard error of (c - c0) / (1 - c0), c the mean paired cosine and c0 = mu_a . mu_b.

    By the delta method, from each instance's influence on c and on c0.

    Args:
        first: (n, d) unit vectors.
        second: (n, d) unit vectors.
        groups: (n,).
    """
    cosine = (first * second).sum(1)
    mean_first, mean_second = first.mean(0), second.mean(0)
    shift = (first - mean_first) @ mean_second + (second - mean_second) @ mean_first
    room = 1 - mean_first @ mean_second
    if room <= 1e-9:
        return None
    return clustered_error((cosine * room - (1 - cosine.mean()) * shift) / room**2, groups)


def paired_cosines(evidence: Evidence, a: int, b: int) -> dict[str, Statistic]:
    """Return the mean cosine of partners beside mu_a . mu_b, and adjusted by it."""
    state, sample = evidence.state, evidence.sample
    column = Columns(len(state.header.names)).cosine[pairs_of(len(state.header.names)).index((a, b))]
    mean_a, mean_b = state.pair_means(a, b)
    mean, null, count = state.summaries.mean(column), float(mean_a @ mean_b), int(state.counts[a, b])
    cosine = Statistic.normal(
        mean, state.summaries.mean_error(column), within=(-1, 1), chance=null, n=count, null="closed_form"
    )
    if 1 - null < COLLAPSED:
        return {
            "cosine": cosine,
            "cosine_adjusted": Statistic.unknown("collapsed", chance=0.0, n=count, null="closed_form"),
        }
    first, second, groups = sample.both(a, b)
    error = adjusted_cosine_error(first, second, groups)
    adjusted = Statistic.normal(
        1 - (1 - mean) / (1 - null),
        rescaled(error, len(first), count),
        within=(-math.inf, 1),
        chance=0.0,
        n=count,
        null="closed_form",
    )
    return {"cosine": cosine, "cosine_adjusted": adjusted}


@statistic(
    "cosine",
    "pair",
    formula="mean cosine c of partners",
    chance="c_0 = mu_a . mu_b",
    range="[-1, 1]",
    needs=["space"],
)
def _cosine(evidence: Evidence, a: int, b: int) -> Statistic:
    return evidence.once(paired_cosines, a, b)["cosine"]


@statistic(
    "cosine_adjusted",
    "pair",
    formula="(c - c_0) / (1 - c_0)",
    chance="0",
    range="up to 1",
    needs=["space"],
)
def _cosine_adjusted(evidence: Evidence, a: int, b: int) -> Statistic:
    return evidence.once(paired_cosines, a, b)["cosine_adjusted"]


def pairing(evidence: Evidence, a: int, b: int) -> Statistic:
    """Return how many permutation deviations the mean inner product of partners lies above its permutation mean.

    Groups are what is independent: the unit of the permutation is a group's mean vector. About N(0, 1) when
    unpaired; None with fewer than three units or where one side does not vary. The interval is that of the data,
    the permutation deviation held fixed.
    """
    first, second, groups = evidence.sample.both(a, b)
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


@statistic(
    "z",
    "pair",
    formula="(c - c_0) over its permutation deviation sqrt(tr(S_aa S_bb)) / (n sqrt(n - 1)), S the centred scatter. "
    "Beyond 4 it is paired",
    chance="N(0, 1)",
    range="real",
    needs=["space"],
)
def _z(evidence: Evidence, a: int, b: int) -> Statistic:
    return evidence.once(pairing, a, b)
