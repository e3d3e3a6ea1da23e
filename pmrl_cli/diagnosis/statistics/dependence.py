"""Are two modalities of any dimensions dependent at all: linear CKA and shared neighbours, with exact nulls.

Both compare which instances are alike in one modality with which are alike in the other, so neither cares in which
coordinates. Their raw values are far from 0 for unrelated modalities of many dimensions; here each stands beside its
mean over all permutations of the pairs, in units of what is left up to 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from pmrl_cli.array_types import Array, Groups
from pmrl_cli.diagnosis.evidence import CORE, Evidence
from pmrl_cli.diagnosis.statistics.declared import statistic
from pmrl_cli.diagnosis.statistics.pairing import pairing
from pmrl_cli.diagnosis.statistics.probe import probe_of
from pmrl_cli.retrieval.similarity import nearest_cosines
from pmrl_cli.stats.statistic import Statistic, clustered_error, group_means, upper_tail

__all__ = [
    "PAIRED_Z",
    "Dependence",
    "Margin",
    "Scatter",
    "compact",
    "dependence",
    "permutation_moments",
    "shared_neighbours",
    "shared_neighbours_moments",
    "strength",
]


def _nearest(vectors: Array) -> npt.NDArray[np.int64]:
    """Return (n, k) indices of the nearest others by cosine, centred: 10, or a quarter of the instances."""
    neighbours = min(10, len(vectors) // 4)
    centred = vectors - vectors.mean(0)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = torch.from_numpy((centred / np.maximum(lengths, 1e-12)).astype(np.float32))
    found: npt.NDArray[np.int64] = nearest_cosines(unit, unit, neighbours, but_own=True)[1].numpy()
    return found


def shared_neighbours_moments(first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Return mean and variance, over all permutations, of the share of common neighbours of two graphs.

    Exact: the share is a sum of products of two adjacency matrices, whose permutation variance needs only how many
    pairs of edges in each graph share a source, a target, a source with a target, both, or nothing (Mantel, Cancer
    Research 27, 1967; Hubert and Schultz, British Journal of Mathematical and Statistical Psychology 29, 1976).

    Args:
        first: (n, k) neighbours of each instance, never itself; n at least 4.
        second: (n, k) likewise.
    """
    n, k = first.shape
    edges = n * k

    def kinds(graph: npt.NDArray[np.int64]) -> Array:
        sources, targets = np.repeat(np.arange(n), k), graph.ravel()
        into = np.bincount(targets, minlength=n).astype(np.float64)
        back = float(np.isin(sources * n + targets, targets * n + sources).sum())
        same_target = float((into * (into - 1)).sum())
        chained = float(into.sum() * k) - back  # i -> j and j -> l with l not i; counted once for each order
        same_source = float(n * k * (k - 1))
        touching = edges + back + same_source + same_target + 2 * chained
        return np.array([edges, back, same_source, same_target, 2 * chained, edges**2 - touching])

    two, three = n * (n - 1), n * (n - 1) * (n - 2)
    ways = np.array([two, two, three, three, 2 * three, three * (n - 3)], dtype=np.float64)
    mean = edges**2 / two
    variance = float((kinds(first) * kinds(second) / ways).sum()) - mean**2
    return mean / edges, max(variance, 0.0) / edges**2


def shared_neighbours(first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]) -> Statistic:
    """Return the share of common nearest neighbours beyond chance: (share - k/(n-1)) / (1 - k/(n-1)).

    Args:
        first: (n, k) neighbours of each instance in one modality.
        second: (n, k) in the other.

    Source: Huh et al., "The Platonic representation hypothesis", ICML 2024 (mutual k-NN); departs: centred, and
        adjusted for chance.
    """
    n, k = first.shape
    if k < 1:
        return Statistic.unknown(chance=0.0, n=n, null="permutation")
    mean, variance = shared_neighbours_moments(first, second)
    rows = np.arange(n)[:, None] * n
    common = np.isin(rows + first, rows + second).sum(1) / k
    adjusted = (common - mean) / (1 - mean)
    p = upper_tail((float(common.mean()) - mean) / math.sqrt(variance)) if variance > 0 else None
    # Neighbourhoods overlap, so that instances are not quite independent: the spread under the null is the least.
    error = max(clustered_error(adjusted, np.arange(n)) or 0.0, math.sqrt(variance) / (1 - mean))
    return Statistic.normal(float(adjusted.mean()), error, within=(-1, 1), chance=0.0, p=p, n=n, null="permutation")


PAIRED_Z = 4.0
"""Above it pairs differ from shuffled ones: under the null 1 in 30,000 does."""

_FEWEST = 6
_NOTHING = 1e-18  # the square of float32 rounding


@dataclass(frozen=True)
class Margin:
    """What one modality says by itself, computed when it is asked for.

    Args:
        vectors: (n, d), d at most n.
    """

    vectors: Array

    @classmethod
    def of(cls, vectors: Array, groups: Groups) -> Margin:
        """Take (n, d) vectors: with groups, whose rows are not independent, their means."""
        if len(np.unique(groups)) < len(groups):
            vectors = group_means(vectors, groups)
        return cls(compact(vectors))

    @property
    def centred(self) -> Array:
        """The vectors less their mean."""
        centred: Array = self.vectors - self.vectors.mean(0)
        return centred

    @cached_property
    def product(self) -> Array:
        """(d, d) sum of x x^T of the centred vectors."""
        centred = self.centred
        product: Array = centred.T @ centred
        return product

    @cached_property
    def fourth(self) -> float:
        """Sum of |x|^4."""
        return float(((self.centred**2).sum(1) ** 2).sum())

    @cached_property
    def influence(self) -> Array:
        """(n,) of each vector on the logarithm of |sum x x^T|."""
        centred = self.centred
        of_each: Array = ((centred @ self.product) * centred).sum(1) / np.vdot(self.product, self.product)
        return of_each

    @cached_property
    def nearest(self) -> npt.NDArray[np.int64]:
        """Neighbours of the first, ``CORE`` at most."""
        return _nearest(self.vectors[:CORE])


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
        return cls.between(Margin(first), Margin(second))

    @classmethod
    def between(cls, first: Margin, second: Margin) -> Scatter:
        """Return the scatter of two modalities, row i of both of the same instance."""
        cross = first.centred.T @ second.centred
        fourth = first.fourth, second.fourth
        return cls(len(first.vectors), first.product, second.product, cross, fourth)

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
        cka_adjusted: (CKA - E) / (1 - E), E its mean over permutations; 0 by chance, at most 1. Its interval is
            that of dependent modalities; whether they are is what p says.
        cka_z: permutation standard deviations of CKA above its mean; about N(0, 1) for unrelated modalities. p is
            one-sided.
        neighbours_adjusted: share of common nearest neighbours, adjusted likewise.
    """

    cka_adjusted: Statistic
    cka_z: Statistic
    neighbours_adjusted: Statistic


def dependence(first: Margin, second: Margin) -> Dependence:
    """Return what two modalities have to do with each other, whatever their coordinates.

    Args:
        first: n unit vectors, n at least 1, or means of groups of them.
        second: likewise, row i of the same instance or group.
    """
    n = len(first.vectors)
    scatter = Scatter.between(first, second)
    cka = scatter.cka()
    moments = permutation_moments(scatter)
    common = shared_neighbours(first.nearest, second.nearest)
    if cka is None or moments is None or moments[1] <= 0:
        collapsed = cka is None and n >= _FEWEST
        nothing = Statistic.unknown("collapsed" if collapsed else "n_too_small", chance=0.0, n=n, null="permutation")
        return Dependence(nothing, nothing, common)
    mean, variance = moments
    z = (cka - mean) / math.sqrt(variance)
    p = upper_tail(z)
    error = _cka_error(first, second, scatter.cross, cka)
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


def compact(vectors: Array) -> Array:
    """Return vectors of the same inner products with no more columns than rows."""
    n, d = vectors.shape
    if d <= n:
        return vectors
    return np.asarray(np.linalg.qr(vectors.T, mode="r")).T


def _cka_error(first: Margin, second: Margin, cross: Array, cka: float) -> float | None:
    """Return the standard error of CKA by the delta method, from each instance's influence on its logarithm."""
    influence = 2 * ((first.centred @ cross) * second.centred).sum(1) / np.vdot(cross, cross)
    influence -= first.influence
    influence -= second.influence
    n = len(influence)
    return clustered_error(cka * n * influence, np.arange(n))


def margin_of(evidence: Evidence, m: int) -> Margin:
    """Return what a modality of the reservoir says by itself, over the instances that have it."""
    sample = evidence.sample
    kept = sample.present[:, m]
    return Margin.of(sample.vectors[m][kept].astype(np.float64), sample.groups[kept])


def dependence_of(evidence: Evidence, a: int, b: int) -> Dependence:
    """Return whether two modalities of the reservoir are dependent."""
    present = evidence.sample.present[:, [a, b]]
    if np.array_equal(present[:, 0], present[:, 1]):
        return dependence(evidence.once(margin_of, a), evidence.once(margin_of, b))
    first, second, groups = evidence.sample.both(a, b)
    return dependence(Margin.of(first, groups), Margin.of(second, groups))


@statistic(
    "cka_adjusted",
    "pair",
    formula="linear CKA less its permutation mean E_0 = sqrt(PR_a PR_b) / (n - 1), over 1 - E_0. Blind to "
    "rotation; raw CKA is near 1 for anything with n < d",
    chance="0",
    range="up to 1",
)
def _cka_adjusted(evidence: Evidence, a: int, b: int) -> Statistic:
    return evidence.once(dependence_of, a, b).cka_adjusted


@statistic(
    "cka_z",
    "pair",
    formula="the same in permutation deviations of CKA above its mean",
    chance="N(0, 1)",
    range="real",
)
def _cka_z(evidence: Evidence, a: int, b: int) -> Statistic:
    return evidence.once(dependence_of, a, b).cka_z


@statistic(
    "neighbours_adjusted",
    "pair",
    formula="shared ten nearest neighbours m beyond chance: (m - 10 / (n - 1)) / (1 - 10 / (n - 1))",
    chance="0",
    range="[-1, 1]",
)
def _neighbours_adjusted(evidence: Evidence, a: int, b: int) -> Statistic:
    return evidence.once(dependence_of, a, b).neighbours_adjusted


@statistic(
    "strength",
    "pair",
    formula="the strongest sign of dependence, in deviations: of |z|, cka_z, and neighbours_adjusted and "
    "probe.shared_dimensions over their errors",
    chance="below 4",
    range="real",
)
def strength(evidence: Evidence, a: int, b: int) -> Statistic:
    """Return by how many deviations the strongest sign of dependence lies above chance."""
    found = []
    if "space" in evidence.has:
        z = evidence.once(pairing, a, b).value  # an inner product may be too small, too
        found.append(None if z is None else abs(z))
    one = evidence.once(dependence_of, a, b)
    found.append(one.cka_z.value)
    reached = evidence.once(probe_of, a, b)
    others = (one.neighbours_adjusted, None if reached is None else reached.shared_dimensions)
    found += [
        other.value / other.se for other in others if other is not None and other.value is not None and other.se
    ]
    known = [value for value in found if value is not None]
    n = one.cka_z.n
    return Statistic(max(known), n=n) if known else Statistic.unknown(n=n)
