"""Are two modalities of any dimensions dependent at all: linear CKA and shared neighbours, with exact nulls.

Both compare which instances are alike in one modality with which are alike in the other, so neither cares in which
coordinates. Their raw values are far from 0 for unrelated modalities of many dimensions; here each stands beside its
mean over all permutations of the pairs, in units of what is left up to 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pmrl_cli.diagnosis.neighbours import shared_neighbours
from pmrl_cli.stats.statistic import Statistic, clustered_error, group_means, upper_tail

__all__ = [
    "Dependence",
    "Scatter",
    "compact",
    "dependence",
    "permutation_moments",
]

Array = npt.NDArray[np.float64]

_FEWEST = 6
_NOTHING = 1e-18  # the square of float32 rounding


@dataclass(frozen=True)
class Scatter:
    """Sums over n instances of centred vectors x and y: all that CKA and its null need.

    Args:
        count: n.
        first: (a, a) sum of x x^T.
        second: (b, b) sum of y y^T.
        cross: (a, b) sum of x y^T.
        fourth: sums of |x|^4 and of |y|^4.
    """

    count: int
    first: Array
    second: Array
    cross: Array
    fourth: tuple[float, float]

    @classmethod
    def of(cls, first: Array, second: Array) -> Scatter:
        """Return the scatter of (n, a) and (n, b) vectors, centred here."""
        x, y = first - first.mean(0), second - second.mean(0)
        fourth = float(((x**2).sum(1) ** 2).sum()), float(((y**2).sum(1) ** 2).sum())
        return cls(len(x), x.T @ x, y.T @ y, x.T @ y, fourth)

    @classmethod
    def of_unit_sums(cls, count: int, sums: tuple[Array, Array], products: tuple[Array, Array, Array]) -> Scatter:
        """Return the scatter of unit vectors from what one pass can add up.

        Args:
            count: n.
            sums: (a,) and (b,), of x and of y, not centred.
            products: (a, a), (b, b) and (a, b) sums of x x^T, y y^T and x y^T, not centred.
        """
        means = [total / count for total in sums]
        fourth = []
        for mean, product in zip(means, products, strict=False):
            square = float(mean @ mean)
            # |x - mean|^2 = 1 - 2 x.mean + |mean|^2 for a unit x
            fourth.append(count * (1 + square) ** 2 - 4 * (1 + square) * count * square + 4 * mean @ product @ mean)
        return cls(
            count,
            products[0] - count * np.outer(means[0], means[0]),
            products[1] - count * np.outer(means[1], means[1]),
            products[2] - count * np.outer(means[0], means[1]),
            (float(fourth[0]), float(fourth[1])),
        )

    def cka(self) -> float | None:
        """Return |S_xy|^2 / (|S_xx| |S_yy|), in [0, 1]; None where one side does not vary.

        Source: Kornblith et al., "Similarity of neural network representations revisited", ICML 2019; it is the RV
            coefficient of Escoufier, Biometrics 29, 1973.
        """
        lengths = np.linalg.norm(self.first) * np.linalg.norm(self.second)
        return float(np.vdot(self.cross, self.cross) / lengths) if lengths > _NOTHING else None


def permutation_moments(scatter: Scatter) -> tuple[float, float] | None:
    """Return mean and variance of CKA over all permutations of one side; None where they are not defined.

    Exact. Needs six instances, and more of them than the participation ratio of either side.

    Source: Kazi-Aoual, Hitier, Sabatier, Lebreton, "Refined approximations to permutation tests for multivariate
        inference", Computational Statistics and Data Analysis 20, 1995; Josse, Pages, Husson, "Testing the
        significance of the RV coefficient", ibid. 53, 2008.
    """
    n = scatter.count
    if n < _FEWEST:
        return None
    ratios, shapes = [], []
    for product, fourth in zip((scatter.first, scatter.second), scatter.fourth, strict=True):
        squared = float(np.vdot(product, product))
        if squared <= _NOTHING:
            return None
        ratio = float(np.trace(product)) ** 2 / squared
        if n - 1 - ratio <= 1e-9:
            return None
        shape = n * (n + 1) * fourth / squared - (n - 1) * (ratio + 2)
        ratios.append(ratio)
        shapes.append((n - 1) / ((n - 3) * (n - 1 - ratio)) * shape)
    spread = (n - 1 - ratios[0]) * (n - 1 - ratios[1])
    variance = 2 * spread / ((n + 1) * (n - 1) ** 2 * (n - 2))
    variance *= 1 + (n - 3) / (2 * n * (n - 1)) * shapes[0] * shapes[1]
    return math.sqrt(ratios[0] * ratios[1]) / (n - 1), variance


@dataclass(frozen=True)
class Dependence:
    """Whether two modalities are dependent.

    Args:
        cka_adj: (CKA - E) / (1 - E), E its mean over permutations; 0 by chance, at most 1. Its interval is that of
            dependent modalities; whether they are is what p says.
        cka_z: permutation standard deviations of CKA above its mean; about N(0, 1) for unrelated modalities. p is
            one-sided.
        mknn_adj: share of common nearest neighbours, adjusted likewise.
    """

    cka_adj: Statistic
    cka_z: Statistic
    mknn_adj: Statistic


def dependence(first: Array, second: Array, groups: npt.NDArray[np.int64], *, neighbours: int = 10) -> Dependence:
    """Return what two modalities have to do with each other, whatever their coordinates.

    Args:
        first: (n, a) unit vectors, n at least 1.
        second: (n, b) unit vectors, row i of the same instance.
        groups: (n,). Only rows of different groups are independent: with groups the vectors are their means.
        neighbours: nearest neighbours that are compared.
    """
    first, second, groups = _independent(first, second, groups)
    n = len(first)
    scatter = Scatter.of(first, second)
    cka = scatter.cka()
    moments = permutation_moments(scatter)
    common = shared_neighbours(first, second, neighbours=neighbours)
    if cka is None or moments is None or moments[1] <= 0:
        collapsed = cka is None and n >= _FEWEST
        nothing = Statistic.unknown("collapsed" if collapsed else "n_too_small", chance=0.0, n=n, null="permutation")
        return Dependence(nothing, nothing, common)
    mean, variance = moments
    z = (cka - mean) / math.sqrt(variance)
    p = upper_tail(z)
    error = _cka_error(first, second, scatter, cka, groups)
    return Dependence(
        Statistic.normal(
            (cka - mean) / (1 - mean),
            None if error is None else error / (1 - mean),
            within=(-mean / (1 - mean), 1.0),
            chance=0.0,
            p=p,
            n=n,
            null="permutation",
        ),
        Statistic(z, chance=0.0, p=p, n=n, null="permutation"),
        common,
    )


def _independent(
    first: Array, second: Array, groups: npt.NDArray[np.int64]
) -> tuple[Array, Array, npt.NDArray[np.int64]]:
    unique = np.unique(groups)
    if len(unique) < len(groups):
        first, second, groups = group_means(first, groups), group_means(second, groups), unique
    return compact(first), compact(second), groups


def compact(vectors: Array) -> Array:
    """Return vectors of the same inner products with no more columns than rows."""
    n, d = vectors.shape
    if d <= n:
        return vectors
    return np.asarray(np.linalg.qr(vectors.T, mode="r")).T


def _cka_error(
    first: Array, second: Array, scatter: Scatter, cka: float, groups: npt.NDArray[np.int64]
) -> float | None:
    """Return the standard error of CKA by the delta method, from each instance's influence on its logarithm."""
    x, y = first - first.mean(0), second - second.mean(0)
    influence = 2 * ((x @ scatter.cross) * y).sum(1) / np.vdot(scatter.cross, scatter.cross)
    for side, product in ((x, scatter.first), (y, scatter.second)):
        influence -= ((side @ product) * side).sum(1) / np.vdot(product, product)
    return clustered_error(cka * len(x) * influence, groups)
