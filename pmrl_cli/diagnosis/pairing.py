"""The mean inner product of partners and its permutation moments, in closed form."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pmrl_cli.stats.statistic import clustered_error

__all__ = ["adjusted_cosine_error", "pairing_moments", "pairing_z"]

Array = npt.NDArray[np.float64]


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
