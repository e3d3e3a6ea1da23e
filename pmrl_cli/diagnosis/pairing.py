"""Statistics of a pair of modalities, and of the cloud of one, with closed-form null values."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = [
    "adjusted_cosine_error",
    "clustered_error",
    "effective_dimension",
    "effective_dimension_of_moments",
    "group_means",
    "mean_off_diagonal_cosine",
    "pairing_moments",
    "pairing_z",
]

Array = npt.NDArray[np.float64]


def clustered_error(values: Array, groups: npt.NDArray[np.int64]) -> float | None:
    """Return the standard error of the mean of ``values``, whose groups (not rows) are independent.

    Args:
        values: (n,).
        groups: (n,) any integers.

    Returns: the error, or None with fewer than two groups.
    """
    _, codes = np.unique(groups, return_inverse=True)
    count = int(codes.max(initial=-1)) + 1
    if count < 2:
        return None
    sums = np.bincount(codes, values - values.mean())
    return float(np.sqrt(count / (count - 1) * (sums**2).sum()) / len(values))


def group_means(vectors: Array, groups: npt.NDArray[np.int64]) -> Array:
    """Return the mean vector of each group: (g, d)."""
    _, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    sums = np.zeros((len(sizes), vectors.shape[1]))
    np.add.at(sums, codes, vectors)
    means: Array = sums / sizes[:, None]
    return means


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


def mean_off_diagonal_cosine(total: Array, count: int) -> float | None:
    """Return the mean cosine between different instances of a modality, in [-1/(n-1), 1]; None below two.

    Args:
        total: (d,) sum of the unit vectors.
        count: how many.
    """
    return float((total @ total - count) / (count * (count - 1))) if count > 1 else None


def effective_dimension(vectors: Array) -> float | None:
    """Return the debiased participation ratio of a cloud of unit vectors: (tr C)^2 / ||C||_F^2, in [1, d] or so.

    d for an isotropic cloud even where there are fewer vectors than dimensions; ||C||_F^2 is estimated without
    bias. None with fewer than four vectors or where the cloud is a point.

    Args:
        vectors: (n, d) unit vectors.

    Source: Song et al., "Feature selection via dependence maximization", JMLR 2012 (unbiased HSIC), of the
        cloud with itself, in moments.
    """
    return effective_dimension_of_moments(len(vectors), vectors.sum(0), vectors.T @ vectors)


def effective_dimension_of_moments(n: int, total: Array, second: Array) -> float | None:
    """Return the same from moments.

    Args:
        n: unit vectors.
        total: (d,) their sum.
        second: (d, d) the sum of x x^T.
    """
    if n < 4:
        return None
    squared = float(total @ total)
    trace = (n - squared / n) / (n - 1)
    off_diagonal = np.vdot(second, second) - n
    row_sums = total @ second @ total - 2 * squared + n
    unbiased = off_diagonal + (squared - n) ** 2 / ((n - 1) * (n - 2)) - 2 * row_sums / (n - 2)
    norm = unbiased / (n * (n - 3))
    return float(trace**2 / norm) if trace > 1e-9 and norm > 0 else None
