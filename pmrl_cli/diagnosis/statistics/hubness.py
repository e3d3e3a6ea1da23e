"""Hubness: whether few candidates are neighbours of most queries."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from pmrl_cli.array_types import Array
from pmrl_cli.diagnosis.evidence import Evidence
from pmrl_cli.diagnosis.statistics.declared import detail, part_of, statistic
from pmrl_cli.diagnosis.statistics.retrieval import ways
from pmrl_cli.retrieval.similarity import nearest_cosines
from pmrl_cli.stats.statistic import Statistic, clustered_error

__all__ = ["Hubness", "hubness", "occurrences"]

Counts = npt.NDArray[np.int64]

_NEIGHBOURS = 10
_SHOWN = 51  # counts 0 .. 49, and 50 or more


@dataclass(frozen=True)
class Hubness:
    """How unevenly candidates are among the 10 nearest of the queries; chance: neighbours drawn at random.

    The skewness of real data grows with the number of candidates: compare only equally many.

    Args:
        skewness: skewness of the occurrences; by chance .316 (one over the root of ten), above 1.5 there are hubs.
        robin_hood: share of all neighbour places that would have to move for all to have as many; by chance .125.
        antihubs: share of candidates that are among the 10 nearest of no query; by chance e^-10.
        counts: candidates that occur 0, 1, .. 49 times, and 50 times or more.
    """

    skewness: Statistic
    robin_hood: Statistic
    antihubs: Statistic
    counts: Counts


def occurrences(queries: Tensor, candidates: Tensor, neighbours: int) -> Counts:
    """Return how often each of (n, d) candidates is among the nearest of the (q, d) queries: (n,)."""
    _, nearest = nearest_cosines(queries, candidates, neighbours)
    return np.bincount(nearest.numpy().ravel(), minlength=len(candidates))


def hubness(queries: Tensor, candidates: Tensor, groups: npt.NDArray[np.int64]) -> Hubness | None:
    """Return the hubness of candidates for as many queries; None with fewer than 40 of them.

    Args:
        queries: (n, d) float32 unit vectors.
        candidates: (n, d) likewise, of the other modality.
        groups: (n,) of the candidates.

    Source: Radovanovic, Nanopoulos, Ivanovic, "Hubs in space", JMLR 2010 (skewness); Feldbauer et al., "Fast
        approximate hubness reduction", 2018 (Robin Hood index).
    """
    n, k = len(candidates), _NEIGHBOURS
    if n < 4 * k:
        return None
    found = occurrences(queries, candidates, k)
    share = k / n  # of the candidates that one query takes: occurrences are binomial by chance
    deviation = float(found.std())
    standard = (found - k) / deviation if deviation > 0 else np.zeros(n)
    skew = float((standard**3).mean())
    influence = standard**3 - skew - 3 * standard - 1.5 * skew * (standard**2 - 1)
    uneven, never = np.abs(found - k) / (2 * k), (found == 0).astype(np.float64)
    # De Moivre: the mean distance of a binomial from its mean n p = k is 2 (k + 1) (1 - p) P(k + 1).
    choose = math.lgamma(n + 1) - math.lgamma(k + 2) - math.lgamma(n - k)
    beyond = math.exp(choose + (k + 1) * math.log(share) + (n - k - 1) * math.log1p(-share))
    counts = np.bincount(np.minimum(found, _SHOWN - 1), minlength=_SHOWN)

    def statistic(value: float, influence: Array, chance: float, most: float) -> Statistic:
        error = clustered_error(influence, groups)
        return Statistic.normal(
            value, error, within=(0.0 if most == 1 else -most, most), chance=chance, n=n, null="closed_form"
        )

    return Hubness(
        statistic(skew, influence, (1 - 2 * share) / math.sqrt(k * (1 - share)), math.inf),
        statistic(float(uneven.mean()), uneven, (k + 1) * (1 - share) * beyond / k, 1.0),
        statistic(float(never.mean()), never, (1 - share) ** n, 1.0),
        counts,
    )


def hubness_of(evidence: Evidence, way: str) -> Hubness | None:
    """Return the hubness of one direction between two modalities; None for fused queries."""
    pair = ways(evidence.names).get(way)
    if pair is None:
        return None
    batch = evidence.core_batch
    both = batch.present[:, list(pair)].all(1)
    queries, candidates = (batch.embeddings[both, m] for m in pair)
    return hubness(queries, candidates, evidence.core.groups[both.numpy()])


statistic(
    "hubness.skewness",
    "direction",
    formula="skewness of how often a candidate is among the ten nearest. Grows with the core",
    chance=".32",
    range="real",
    needs=["space"],
)(part_of(hubness_of, "skewness"))


statistic(
    "hubness.robin_hood",
    "direction",
    formula="fraction of neighbour places to move to make all equal",
    chance=".125",
    range="[0, 1]",
    needs=["space"],
)(part_of(hubness_of, "robin_hood"))


statistic(
    "hubness.antihubs",
    "direction",
    formula="fraction of candidates that are among no query's ten nearest",
    chance="e^-10",
    range="[0, 1]",
    needs=["space"],
)(part_of(hubness_of, "antihubs"))


detail(
    "hubness.counts",
    "direction",
    about="candidates that are 0, 1, 2, ... times among the ten nearest, the last open-ended",
    schema={"type": "array", "items": {"type": "integer", "minimum": 0}},
    needs=["space"],
)(part_of(hubness_of, "counts"))
