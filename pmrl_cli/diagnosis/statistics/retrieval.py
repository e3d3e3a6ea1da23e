"""Retrieval within the reservoir: the ranks of ``pmrl_cli.retrieval`` in units that galleries of any size share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pmrl_cli.diagnosis.evidence import Evidence
from pmrl_cli.diagnosis.statistics.declared import detail, statistic
from pmrl_cli.retrieval.batches import Batch
from pmrl_cli.retrieval.intervals import Measured, Sample, Units, interval, mean_over
from pmrl_cli.retrieval.labels import LABEL_METRIC, label_precision, measure_labels
from pmrl_cli.retrieval.metrics import (
    chance,
    hits_in_gallery,
    metric,
    random_order,
    standard_gallery,
    tie_spread,
    wins,
)
from pmrl_cli.retrieval.ranks import OTHERS, Ranks, rank_batch
from pmrl_cli.retrieval.relevance import Relevance
from pmrl_cli.stats.statistic import Statistic

__all__ = [
    "ReservoirRetrieval",
    "means_section",
    "measured_statistic",
    "retrieve",
    "retrieve_sample",
    "ways",
]

_CURVE = (2, 5, 10, 30, 100, 300, 1000, 3000)
_AT = "R@1 in "


class ReservoirRetrieval(NamedTuple):
    """Retrieval in every direction.

    Args:
        ranks: by direction.
        measured: by direction, then metric: ``R@1``, ``R@5``, ``R@10``, ``MRR``, ``AUC`` (the chance that the
            partner beats another candidate, 1 - FOSCTTM), ``R@1_standard`` (R@1 in the standard gallery) and
            ``label_mAP`` where there are labels.
        tie_spread: by direction, how far ties leave R@1 open.
        standard_gallery: candidates of the standard gallery: the largest of 1000, 100 and 10 that every direction
            fills; None if none is.
    """

    ranks: Mapping[str, Ranks]
    measured: Mapping[str, Mapping[str, Measured]]
    tie_spread: Mapping[str, float]
    standard_gallery: int | None


def retrieve(
    batch: Batch,
    names: tuple[str, ...],
    groups: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int64] | None,
    *,
    relevance: Relevance | None = None,
    seed: int,
) -> ReservoirRetrieval:
    """Rank the reservoir within itself.

    Args:
        batch: the reservoir.
        names: of the modalities.
        groups: by row of the data set, what the bootstrap draws.
        labels: by row of the data set, negative for none; or None.
        relevance: of the reservoir: what is right for which; None: each instance for itself alone.
        seed: of the bootstrap.
    """
    ranked = rank_batch(batch, names, relevance=relevance)
    smallest = min(ranks.gallery for ranks in ranked.values())
    standard = standard_gallery(smallest)
    units = Units.of(groups, batch.rows, seed)
    samples, expected = {}, {}
    for name, ranks in ranked.items():
        at_random = random_order(ranks)
        values = {found: metric(found, ranks) for found in ("R@1", "R@5", "R@10", "MRR")}
        if ranks.gallery > 1:
            values["AUC"] = wins(ranks)
        expected[name] = {found: chance(found, ranks) for found in values}
        sizes = {} if standard is None else {"R@1_standard": standard}
        if not name.startswith(f"{OTHERS}->"):
            sizes |= {f"{_AT}{size}": size for size in _CURVE if size <= smallest}
        values |= {found: hits_in_gallery(ranks, 1, size) for found, size in sizes.items()}
        expected[name] |= {found: float(hits_in_gallery(at_random, 1, size).mean()) for found, size in sizes.items()}
        samples[name] = Sample(units.groups[ranks.rows], values)
    measured = units.measure(samples, expected)
    if labels is not None:
        found = label_precision(batch, names, labels, np.ones(len(batch.rows), dtype=bool))
        for name, one in measure_labels(found, units).items():
            measured[name] |= one
    return ReservoirRetrieval(ranked, measured, {n: tie_spread(r) for n, r in ranked.items()}, standard)


def measured_statistic(measured: Measured, n: int) -> Statistic:
    """Return what retrieval measured as a statistic over n queries."""
    ci = interval(measured.draws)
    return Statistic(
        measured.value,
        chance=measured.chance,
        ci=ci,
        ci_method=None if ci is None else "group_bootstrap",
        se=None if ci is None else float(np.nanstd(measured.draws)),
        n=n,
        null="closed_form",
    )


def ways(names: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return the directions between two modalities by name: (asking, answering)."""
    pairs = permutations(range(len(names)), 2)
    return {f"{names[a]}->{names[b]}": (a, b) for a, b in pairs}


def retrieve_sample(evidence: Evidence) -> ReservoirRetrieval:
    """Rank the reservoir of some evidence within itself."""
    header, sample = evidence.state.header, evidence.sample
    labels = None if header.label is None else sample.labels
    return retrieve(
        evidence.batch,
        evidence.names,
        sample.groups,
        labels,
        relevance=sample.relevance,
        seed=header.seed,
    )


def means_section(evidence: Evidence) -> dict[str, Any]:
    """Return the means over directions between two modalities, and over those of fused queries."""
    retrieved = evidence.once(retrieve_sample)
    fused = [name for name in retrieved.measured if name.startswith(f"{OTHERS}->")]
    kinds = {"pairwise": [name for name in retrieved.measured if name not in fused], "fused": fused}
    means: dict[str, Any] = {
        "standard_gallery": retrieved.standard_gallery,
        "tie_spread": max(retrieved.tie_spread.values()),
    }
    for kind, names in kinds.items():
        measured = mean_over([retrieved.measured[name] for name in names])
        queries = sum(len(retrieved.ranks[name].rows) for name in names)
        means[kind] = None
        if measured is not None:
            shown = {metric: measured_statistic(one, queries) for metric, one in measured.items()}
            means[kind] = {metric: one for metric, one in shown.items() if not metric.startswith(_AT)}
            if kind == "pairwise":
                means["curve"] = [
                    {"gallery": int(metric.removeprefix(_AT)), "R@1": one}
                    for metric, one in shown.items()
                    if metric.startswith(_AT)
                ]
    return means


def _declare(metric: str, formula: str, chance: str) -> None:
    @statistic(metric, "direction", formula=formula, chance=chance, range="[0, 1]", needs=["space"])
    def of_direction(evidence: Evidence, way: str) -> Statistic | None:
        retrieved = evidence.once(retrieve_sample)
        found = retrieved.measured[way].get(metric)
        return None if found is None else measured_statistic(found, len(retrieved.ranks[way].rows))


for _metric, _formula, _chance in (
    ("R@1", "how often the partner is ranked first among gallery candidates, ties in random order", "1/N"),
    ("R@5", "the same, among the first five", "5/N"),
    ("R@10", "the same, among the first ten", "10/N"),
    ("MRR", "mean reciprocal rank of the partner", "H_N / N"),
    ("AUC", "P(the partner beats another candidate) = 1 - (rank - 1) / (N - 1), 1 - FOSCTTM", "1/2"),
    (
        "R@1_standard",
        "R@1 in a random gallery of 1,000, 100 or 10: hypergeometric, exact from the ranks",
        "1 / gallery",
    ),
    (LABEL_METRIC, "mean average precision of finding the query's label", "the mean of a random order"),
):
    _declare(_metric, _formula, _chance)


@detail(
    "gallery",
    "direction",
    about="candidates of each query",
    schema={"type": "integer", "minimum": 0},
    needs=["space"],
)
def _gallery(evidence: Evidence, way: str) -> int:
    return evidence.once(retrieve_sample).ranks[way].gallery


@detail("tie_spread", "direction", about="how far ties leave R@1 open", schema={"type": "number"}, needs=["space"])
def _tie_spread(evidence: Evidence, way: str) -> float:
    return evidence.once(retrieve_sample).tie_spread[way]
