"""The gap between two modalities: an offset, unlike shapes, and what both in one gallery cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pmrl_cli.array_types import Array, Mask
from pmrl_cli.diagnosis.evidence import Evidence
from pmrl_cli.diagnosis.state.summaries import Columns
from pmrl_cli.diagnosis.statistics.declared import statistic
from pmrl_cli.diagnosis.statistics.retrieval import retrieve_sample
from pmrl_cli.retrieval.metrics import hits_in_gallery
from pmrl_cli.retrieval.partners import PairRanks, mixed_ranks, partner_ranks
from pmrl_cli.retrieval.ranks import Ranks
from pmrl_cli.stats.instances import COLLAPSED, pairs_of
from pmrl_cli.stats.statistic import Statistic, clustered_error, rescaled

__all__ = ["Cloud", "bures", "covariance_gap", "mixed_gallery_penalty", "offsets", "shape_gap"]


_FLOOR = 1e-9  # of the largest eigenvalue; below it is rounding


def _root(values: Array, vectors: Array) -> Array:
    """Return the root of the matrix of these eigenvalues and eigenvectors."""
    root: Array = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    return root


def bures(first: Array, second: Array) -> float:
    """Return the squared Bures distance of two covariances: tr A + tr B - 2 tr (A^1/2 B A^1/2)^1/2, at least 0.

    Args:
        first: (d, d) positive semi-definite.
        second: (d, d) likewise.
    """
    return _bures(_root(*np.linalg.eigh(first)), first, second)


def _bures(root: Array, first: Array, second: Array) -> float:
    """Return the same where the root of the first is known."""
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ second @ root), 0)).sum()
    return max(0.0, float(np.trace(first) + np.trace(second) - 2 * shared))


def _covariance(vectors: Array) -> Array:
    centred = vectors - vectors.mean(0)
    covariance: Array = centred.T @ centred / len(centred)
    return covariance


@dataclass(frozen=True)
class Cloud:
    """The vectors of one modality, whose shape is computed when it is asked for.

    Args:
        vectors: (n, d).
        half: (n,) which are in the first half.
    """

    vectors: Array
    half: Mask

    @cached_property
    def covariance(self) -> Array:
        """(d, d)."""
        return _covariance(self.vectors)

    @cached_property
    def eigen(self) -> tuple[Array, Array]:
        """Eigenvalues of the covariance, ascending, and its eigenvectors as columns."""
        values, vectors = np.linalg.eigh(self.covariance)
        return values, vectors

    @cached_property
    def chance(self) -> float:
        """Half of what the two halves differ by, as a share of the sum of their traces."""
        parts = _covariance(self.vectors[self.half]), _covariance(self.vectors[~self.half])
        both = float(np.trace(parts[0]) + np.trace(parts[1]))
        return bures(*parts) / both / 2 if both > 1e-12 else 0.0


def covariance_gap(first: Cloud, second: Cloud, groups: npt.NDArray[np.int64]) -> Statistic:
    """Return how unlike the shapes of two modalities are: Bures over the sum of the traces, in [0, 1].

    0 for equal covariances, 1 for clouds in orthogonal spaces; centring cannot change it. Chance is what two samples
    of one cloud differ by, half of what the two halves of each modality do (d / (4 n) for an isotropic cloud).

    Args:
        first: n vectors of one space.
        second: likewise, of the same instances.
        groups: (n,).

    Source: Dowson and Landau, Journal of Multivariate Analysis 12, 1982 (the covariance part of FID). The interval
        is by the delta method: the derivative of the distance is the optimal transport map between the clouds.
    """
    (n, d), half = first.vectors.shape, first.half
    if d > 2 * n:  # the same cloud in the span of all the vectors
        factor = np.asarray(np.linalg.qr(np.concatenate([first.vectors, second.vectors]).T, mode="r")).T
        first, second = Cloud(factor[:n], half), Cloud(factor[n:], half)
    total = float(np.trace(first.covariance) + np.trace(second.covariance))
    if min(half.sum(), (~half).sum()) < 2:
        return Statistic.unknown(n=n)
    if total <= 1e-12:
        return Statistic.unknown("collapsed", n=n)
    value = _bures(_root(*first.eigen), first.covariance, second.covariance) / total
    error = None
    if n > d:
        size = np.zeros(n)
        influence = np.zeros(n)
        for own, other in ((first, second), (second, first)):
            centred = own.vectors - own.vectors.mean(0)
            squared = (centred**2).sum(1)
            size += squared
            influence += squared - ((centred @ _transport(own, other.covariance)) * centred).sum(1)
        error = clustered_error((influence - value * size) / total, groups)
    chance = float(np.mean([first.chance, second.chance]))
    return Statistic.normal(value, error, within=(0, 1), chance=chance, n=n)


def _transport(source: Cloud, target: Array) -> Array:
    """Return the symmetric map T with T A T = B, on the span of A."""
    values, vectors = source.eigen
    kept = values > _FLOOR * values[-1]
    roots = np.sqrt(values[kept])
    basis = vectors[:, kept]
    inner = _root(*np.linalg.eigh((basis * roots).T @ target @ (basis * roots)))
    transport: Array = (basis / roots) @ inner @ (basis / roots).T
    return transport


def mixed_gallery_penalty(
    ways: Sequence[tuple[Ranks, Ranks]], groups: npt.NDArray[np.int64], *, gallery: int
) -> Statistic:
    """Return how much R@1 falls when the candidates are of both modalities, at one size of the gallery.

    The mean over both directions; the query itself is no candidate. 0 by chance, for then the modalities are
    exchangeable, and near R@1 where every instance of the query's own modality is nearer than its partner.

    Args:
        ways: of each direction, the ranks of n partners among their modality, and among both.
        groups: (n,).
        gallery: candidates, at most n.

    Source: after GR-CLIP (Li et al., 2025, arXiv 2507.19054); departs: galleries of one size, so that more
        candidates alone cost nothing.
    """
    lost = np.zeros(len(groups))
    for pure, mixed in ways:
        lost += (hits_in_gallery(pure, 1, gallery) - hits_in_gallery(mixed, 1, gallery)) / len(ways)
    return Statistic.mean(lost, groups, within=(-1, 1), chance=0.0)


def core_ranks(evidence: Evidence) -> tuple[PairRanks, PairRanks]:
    """Return the ranks of partners in the core, among those of their modality and among both modalities."""
    ranks = partner_ranks(evidence.core_batch)
    return ranks, mixed_ranks(evidence.core_batch, ranks)


def offsets(evidence: Evidence, a: int, b: int) -> dict[str, Statistic]:
    """Return the distance of the two means, and its square as a share of the mean squared distance of partners."""
    state, sample = evidence.state, evidence.sample
    column = Columns(len(state.header.names)).cosine[pairs_of(len(state.header.names)).index((a, b))]
    count = int(state.counts[a, b])
    mean_a, mean_b = state.pair_means(a, b)
    between = mean_a - mean_b
    gap, distance = float(between @ between), 2 - 2 * state.summaries.mean(column)
    first, second, groups = sample.both(a, b)
    of_gap = 2 * ((first - second) @ between)
    # The error of a length is that of its square over twice the length: there is none at zero.
    error = None if gap <= COLLAPSED else clustered_error(of_gap / (2 * math.sqrt(gap)), groups)
    centroid = Statistic.normal(
        math.sqrt(gap),
        rescaled(error, len(first), count),
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
            rescaled(error, len(first), count),
            within=(0, 1),
            chance=1 / count,
            n=count,
            null="closed_form",
        ),
    }


@statistic(
    "gap.centroid", "pair", formula="distance of the two mean vectors", chance="0", range="[0, 2]", needs=["space"]
)
def _centroid(evidence: Evidence, a: int, b: int) -> Statistic:
    return evidence.once(offsets, a, b)["centroid"]


@statistic(
    "gap.gap_share",
    "pair",
    formula="squared distance of the mean vectors over the mean squared distance of partners: the part of it that "
    "is a constant offset",
    chance="about 1/n",
    range="[0, 1]",
    needs=["space"],
)
def _gap_share(evidence: Evidence, a: int, b: int) -> Statistic:
    return evidence.once(offsets, a, b)["gap_share"]


def cloud_of(evidence: Evidence, m: int) -> Cloud:
    """Return the vectors of a modality of the reservoir, of the instances that have it."""
    kept = evidence.sample.present[:, m]
    return Cloud(evidence.sample.vectors[m][kept].astype(np.float64), evidence.half[kept])


@statistic(
    "gap.covariance_gap",
    "pair",
    formula="Bures distance of the covariances over the sum of their traces: what centring cannot fix",
    chance="about d / 4n",
    range="[0, 1]",
    needs=["space"],
)
def shape_gap(evidence: Evidence, a: int, b: int) -> Statistic:
    """Return the covariance gap of two modalities of one width, from the joint moments.

    Value and chance are those of ``covariance_gap``; its error, of the reservoir, is rescaled to the instances here.

    """
    sample, totals = evidence.sample, evidence.totals
    both = sample.present[:, [a, b]].all(1)
    if np.array_equal(sample.present[:, a], sample.present[:, b]):
        clouds = evidence.once(cloud_of, a), evidence.once(cloud_of, b)
    else:
        first, second, _ = sample.both(a, b)
        clouds = Cloud(first, evidence.half[both]), Cloud(second, evidence.half[both])
    small, held = covariance_gap(*clouds, sample.groups[both]), int(both.sum())
    n = int(min(totals[0].counts[a, a], totals[0].counts[b, b]))
    if small.value is None or n <= held or min(int(one.counts[m, m]) for one in totals for m in (a, b)) < 2:
        return small
    covariances = [totals[0].covariance(m, m) for m in (a, b)]
    total = sum(float(np.trace(one)) for one in covariances)
    chance = []
    for m in (a, b):
        halves = [one.covariance(m, m) for one in totals[1:]]
        chance.append(bures(*halves) / sum(float(np.trace(one)) for one in halves) / 2)
    return Statistic.normal(
        bures(*covariances) / total,
        rescaled(small.se, held, n),
        within=(0, 1),
        chance=float(np.mean(chance)),
        n=n,
    )


@statistic(
    "gap.mixed_penalty",
    "pair",
    formula="R@1 lost when the gallery holds both modalities, the query left out, at one size of the gallery: what a "
    "gap costs",
    chance="0",
    range="[-1, 1]",
    needs=["space"],
)
def _mixed_penalty(evidence: Evidence, a: int, b: int) -> Statistic | None:
    gallery = evidence.once(retrieve_sample).standard_gallery
    pure, mixed = evidence.once(core_ranks)
    if gallery is None or (a, b) not in pure or gallery > pure[a, b].gallery:
        return None
    groups = evidence.core.groups[pure[a, b].rows]
    return mixed_gallery_penalty([(pure[way], mixed[way]) for way in ((a, b), (b, a))], groups, gallery=gallery)
