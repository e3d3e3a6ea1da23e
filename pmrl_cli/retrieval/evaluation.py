"""``evaluate``: retrieval metrics of a data set whose modalities share a space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pmrl_cli.data.columns import codes_of, group_column, label_column
from pmrl_cli.data.dataset import Dataset
from pmrl_cli.data.leaks import Leaks
from pmrl_cli.data.links import links_of
from pmrl_cli.data.repeats import repeats_of, with_hashes
from pmrl_cli.fusion import check_fusion
from pmrl_cli.process_group import SINGLE_PROCESS, ProcessGroup
from pmrl_cli.retrieval.batches import check_one_space, read_batch
from pmrl_cli.retrieval.intervals import Array, Sample, interval, resample
from pmrl_cli.retrieval.labels import label_precision
from pmrl_cli.retrieval.metrics import METRICS, chance, metric, tie_spread
from pmrl_cli.retrieval.ranks import OTHERS, rank_dataset
from pmrl_cli.retrieval.relevance import Relevance

__all__ = [
    "LABEL_GALLERY",
    "LABEL_METRIC",
    "LABEL_QUERIES",
    "Evaluation",
    "Measured",
    "evaluate",
    "mean_over",
    "scope_of",
]

LABEL_QUERIES = 2000
"""Queries of label retrieval per data set: each needs its whole ranking sorted."""

LABEL_GALLERY = 20_000
"""Candidates of label retrieval: they are held in memory."""


LABEL_METRIC = "label_mAP"

SEVERAL = ("mAP", "R-precision")
"""Metrics that say more than the others only where a query may have several right answers."""

DRAWS = 1000
"""Bootstrap resamples behind every interval."""


class Measured(NamedTuple):
    """A metric: its value, what a random order gives, and its bootstrap draws."""

    value: float
    chance: float
    draws: Array

    def as_dict(self) -> dict[str, Any]:
        """Return value, chance and 95 % interval; the interval is None where there are too few draws."""
        ci = interval(self.draws)
        return {"value": self.value, "chance": self.chance, "ci": None if ci is None else list(ci)}


@dataclass(frozen=True)
class Evaluation:
    """What ``evaluate`` found.

    Args:
        directions: by direction (``a->b``, ``others->b``): ``gallery`` and ``queries`` (different vectors),
            ``right_answers`` (of a query, on average), ``tie_spread`` (how far ties leave R@1 open) and ``metrics``:
            ``{"value", "chance", "ci"}`` by name.
        pairwise: the mean of each metric over the directions between two modalities.
        fused: the same over the ``others->b`` directions; None for two modalities.
        facts: instances, modalities, dim, queries, repeated vectors, fusion, columns, seed and bootstrap draws.
        scope: a sentence on which instances these are.
        leaks: what they share with those that trained the model that embedded them; None without a model.
    """

    directions: Mapping[str, Mapping[str, Any]]
    pairwise: Mapping[str, Any] | None
    fused: Mapping[str, Any] | None
    facts: Mapping[str, Any]
    scope: str
    leaks: Leaks | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the ``pmrl.evaluate/1`` object: JSON values only, null for what cannot be said."""
        return {
            "schema": "pmrl.evaluate/1",
            "scope": self.scope,
            "leaks": None if self.leaks is None else self.leaks.as_dict(),
            "leaked": None if self.leaks is None else self.leaks.sentence(),
            **self.facts,
            "directions": {name: dict(found) for name, found in self.directions.items()},
            "pairwise": self.pairwise,
            "fused": self.fused,
        }


def evaluate(
    dataset: Dataset,
    *,
    fusion: str = "leading",
    label: str | None = None,
    group: str | None = None,
    match: str | None = None,
    seed: int = 0,
    max_queries: int = 20_000,
    processes: ProcessGroup = SINGLE_PROCESS,
) -> Evaluation:
    """Measure cross-modal retrieval in every direction, and from all other modalities fused.

    Equal vectors of a modality are one query and one candidate, for which the partners of all of them are right.

    Args:
        dataset: modalities of one dim; vectors of any length (they are compared by cosine).
        fusion: how the other modalities ask for one: ``leading``, with their leading direction, or ``weighted``, with
            the consensus that each candidate weights (see ``pmrl_cli.fusion``).
        label: side column of labels: adds the mean average precision of finding the query's label (None: ``label``,
            where there is one).
        group: side column of groups that are drawn together for the intervals (None: ``group``, where there is one).
        match: side column; instances of one value show the same thing: each is a right answer for the others.
        seed: of the choice of queries and of the bootstrap.
        max_queries: above this many instances, that many chosen by the hash of their ids ask; the gallery is full.
        processes: the processes that ask a share of the queries each, of a data set that all of them have.

    Raises: DataError if the modalities do not share a space or no instance has two; UsageError for an unknown
        fusion or column.
    """
    check_fusion(fusion)
    check_one_space(dataset)
    dataset = with_hashes(dataset)
    label, group = label_column(dataset, label), group_column(dataset, group)
    rows = np.flatnonzero(dataset.present.sum(1) >= 2)
    queries = dataset.smallest_by_hash(rows, max_queries, seed)
    ranked = rank_dataset(
        dataset, queries, relevance=Relevance.of(dataset, match), fusion=fusion, processes=processes
    )

    codes = links_of(dataset, match=match, group=group).dependent
    numbers, positions = np.unique(codes[queries], return_inverse=True)
    groups = np.full(len(dataset), -1)
    groups[queries] = positions
    draws = DRAWS if len(numbers) > 1 else 0
    several = any(ranks.answers is not None for ranks in ranked.values())
    means = METRICS if several else [name for name in METRICS if name not in SEVERAL]
    samples = {
        name: Sample(
            groups[ranks.rows],
            {one: metric(one, ranks) for one in means},
            {"median_rank": metric("median_rank", ranks)},
        )
        for name, ranks in ranked.items()
    }
    resampled = resample(samples, len(numbers), draws=draws, seed=seed)
    directions: dict[str, dict[str, Measured]] = {
        name: {
            one: Measured(value, chance(one, ranked[name]), resampled[name, one])
            for one, value in sample.values().items()
        }
        for name, sample in samples.items()
    }
    if label is not None:
        gallery = dataset.smallest_by_hash(queries, LABEL_GALLERY, seed)
        asking = np.isin(gallery, dataset.smallest_by_hash(queries, LABEL_QUERIES, seed))
        labels = codes_of(dataset, label)
        found = label_precision(read_batch(dataset, gallery), dataset.names, labels, asking)
        samples = {name: Sample(groups[one.rows], {LABEL_METRIC: one.precision}) for name, one in found.items()}
        resampled = resample(samples, len(numbers), draws=draws, seed=seed)
        for name, one in found.items():
            draws_of = resampled[name, LABEL_METRIC]
            directions[name][LABEL_METRIC] = Measured(float(one.precision.mean()), float(one.chance.mean()), draws_of)
    fused = [name for name in ranked if name.startswith(f"{OTHERS}->")]
    repeats = repeats_of(dataset)
    return Evaluation(
        directions={
            name: {
                "gallery": ranks.gallery,
                "queries": len(ranks.rows),
                "right_answers": 1.0 if ranks.answers is None else float(ranks.answers.right.mean()),
                "tie_spread": tie_spread(ranks),
                "metrics": {one: measured.as_dict() for one, measured in directions[name].items()},
            }
            for name, ranks in ranked.items()
        },
        pairwise=_as_dicts(mean_over([directions[name] for name in ranked if name not in fused])),
        fused=_as_dicts(mean_over([directions[name] for name in fused])),
        facts={
            "instances": len(dataset),
            "instances_in_two": len(rows),
            "modalities": list(dataset.names),
            "dim": dataset.dims[0],
            "queries": len(queries),
            "repeats": {name: found.as_dict() for name, found in repeats.items()},
            "repeated": [text for name, found in repeats.items() if (text := found.sentence(name))],
            "fusion": fusion,
            "label": label,
            "label_queries": min(LABEL_QUERIES, len(queries)) if label else 0,
            "group": group,
            "match": match,
            "groups": len(numbers),
            "seed": seed,
            "bootstrap": draws,
        },
        scope=scope_of(dataset),
    )


def scope_of(dataset: Dataset) -> str:
    """Return the sentence that says which instances are judged where no model chose some."""
    return f"{'all ' * (len(dataset) > 1)}{len(dataset):,} instance{'s' * (len(dataset) != 1)}, compared as they are"


def _as_dicts(measured: Mapping[str, Measured] | None) -> dict[str, Any] | None:
    return None if measured is None else {name: one.as_dict() for name, one in measured.items()}


def mean_over(directions: Sequence[Mapping[str, Measured]]) -> dict[str, Measured] | None:
    """Return the mean over directions of each metric (over those that have it), None without a direction."""
    means = {}
    for name in dict.fromkeys(name for direction in directions for name in direction):
        parts = [direction[name] for direction in directions if name in direction]
        means[name] = Measured(
            float(np.mean([part.value for part in parts])),
            float(np.mean([part.chance for part in parts])),
            np.mean([part.draws for part in parts], axis=0),
        )
    return means or None
