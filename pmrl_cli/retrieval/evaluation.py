"""``evaluate``: retrieval metrics of a data set whose modalities share a space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pmrl_cli.data.columns import codes_of, group_column, label_column
from pmrl_cli.data.dataset import Dataset
from pmrl_cli.data.frames import numbers_frame
from pmrl_cli.data.leaks import Leaks
from pmrl_cli.data.links import links_of
from pmrl_cli.data.repeats import repeats_of, with_hashes
from pmrl_cli.fusion import check_fusion
from pmrl_cli.process_group import SINGLE_PROCESS, ProcessGroup
from pmrl_cli.retrieval.batches import check_one_space, read_batch, scope_of
from pmrl_cli.retrieval.intervals import Measured, Sample, Units, mean_over
from pmrl_cli.retrieval.labelled import numbers_by_class, probe_accuracy, zero_shot_accuracy
from pmrl_cli.retrieval.labels import label_precision, measure_labels
from pmrl_cli.retrieval.metrics import METRICS, chance, metric, tie_spread
from pmrl_cli.retrieval.ranks import OTHERS, Ranks, rank_dataset
from pmrl_cli.retrieval.relevance import Relevance
from pmrl_cli.retrieval.zero_shot import classes_of

__all__ = ["Evaluation", "Sampling", "evaluate"]

LABEL_QUERIES = 2000
"""Queries of label retrieval per data set: each needs its whole ranking sorted."""

LABEL_GALLERY = 20_000
"""Candidates of label retrieval, and instances of the linear probe: they are held in memory."""

SEVERAL = ("mAP", "R-precision")
"""Metrics that say more than the others only where a query may have several right answers."""


@dataclass(frozen=True, repr=False)
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
        by_class: R@1, MRR and label_mAP of each class of the label; None without labels.
        probe: accuracy of a linear classifier of the label, of each modality and fused; None without labels.
        zero_shot: accuracy of taking the nearest class; None where none were given.
        leaks: what they share with those that trained the model that embedded them; None without a model.
    """

    directions: Mapping[str, Mapping[str, Any]]
    pairwise: Mapping[str, Any] | None
    fused: Mapping[str, Any] | None
    facts: Mapping[str, Any]
    scope: str
    by_class: Mapping[str, Any] | None = None
    probe: Mapping[str, Any] | None = None
    zero_shot: Mapping[str, Any] | None = None
    leaks: Leaks | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the ``pmrl.evaluate/1`` object: JSON values only, null for what is not known."""
        return {
            "schema": "pmrl.evaluate/1",
            "scope": self.scope,
            "leaks": None if self.leaks is None else self.leaks.as_dict(),
            "leaked": None if self.leaks is None else self.leaks.sentence(),
            **self.facts,
            "directions": {name: dict(found) for name, found in self.directions.items()},
            "pairwise": self.pairwise,
            "fused": self.fused,
            "by_class": self.by_class,
            "probe": self.probe,
            "zero_shot": self.zero_shot,
        }

    def to_frame(self) -> Any:  # noqa: ANN401 - of pandas
        """Return every number as a row of a pandas frame: value, chance, low, high, by its path in ``as_dict``."""
        return numbers_frame(self.as_dict())

    def __repr__(self) -> str:
        means = self.pairwise or {}
        shown = (
            f"{key} {means[key]['value']:.3f} (chance {means[key]['chance']:.3f})"
            for key in ("R@1", "MRR")
            if key in means
        )
        return f"Evaluation({', '.join([', '.join(self.facts['modalities']), self.scope, *shown])})"


@dataclass(frozen=True)
class Sampling:
    """Which instances ask, and the seed of every draw.

    Args:
        queries: above this many instances, that many chosen by the hash of their ids ask; the gallery is full.
        seed: of that choice, of the bootstrap and of the folds of the probe.
    """

    queries: int = 20_000
    seed: int = 0


def evaluate(
    dataset: Dataset,
    *,
    classes: Dataset | None = None,
    fusion: str = "leading",
    label: str | None = None,
    group: str | None = None,
    match: str | None = None,
    sampling: Sampling = Sampling(),
    processes: ProcessGroup = SINGLE_PROCESS,
) -> Evaluation:
    """Measure cross-modal retrieval in every direction, and from all other modalities fused.

    Equal vectors of a modality are one query and one candidate, for which the partners of all of them are right.

    Args:
        dataset: modalities of one dim; vectors of any length (they are compared by cosine).
        classes: one modality, whose ids are values of the label: adds zero-shot classification. No instance then
            needs two modalities.
        fusion: how the other modalities ask for one: ``leading``, with their leading direction, or ``weighted``, with
            the consensus that each candidate weights (see ``pmrl_cli.fusion``).
        label: side column of labels: adds the mean average precision of finding the query's label, numbers of each
            class and a linear probe (None: ``label``, where there is one).
        group: side column of groups that are drawn together for the intervals (None: ``group``, where there is one).
        match: side column; instances of one value show the same thing: each is a right answer for the others.
        sampling: which instances ask, and the seed of every draw.
        processes: the processes that ask a shard of the queries each, of a data set that all of them have.

    Raises: DataError if the modalities do not share a space, no instance has two or no label is a class; UsageError
        for an unknown fusion or column.
    """
    check_fusion(fusion)
    if classes is None:
        check_one_space(dataset)
    dataset = with_hashes(dataset)
    asked = _Asked(dataset, fusion, label_column(dataset, label), group_column(dataset, group), match, sampling)
    of_class = None if classes is None else classes_of(dataset, asked.label, classes)
    ranked = asked.ranked(processes)
    directions = _measured(ranked, asked.units)
    fused = [name for name in ranked if name.startswith(f"{OTHERS}->")]
    by_class = probe = zero_shot = None
    if asked.label is not None:
        by_class = asked.by_class({name: ranks for name, ranks in ranked.items() if name not in fused}, directions)
        probe = asked.probe()
    if classes is not None and of_class is not None:
        zero_shot = asked.zero_shot(classes, of_class)
    return Evaluation(
        directions={name: _described(ranks, directions[name]) for name, ranks in ranked.items()},
        pairwise=_as_dicts(mean_over([directions[name] for name in ranked if name not in fused])),
        fused=_as_dicts(mean_over([directions[name] for name in fused])),
        facts=asked.facts(),
        scope=scope_of(dataset),
        by_class=by_class,
        probe=probe,
        zero_shot=zero_shot,
    )


@dataclass(frozen=True)
class _Asked:
    """What is to be measured; the arguments are those of ``evaluate``, columns as they are used."""

    dataset: Dataset
    fusion: str
    label: str | None
    group: str | None
    match: str | None
    sampling: Sampling

    @cached_property
    def rows(self) -> npt.NDArray[np.int64]:
        """Instances with two modalities or more."""
        return np.flatnonzero(self.dataset.present.sum(1) >= 2)

    @cached_property
    def queries(self) -> npt.NDArray[np.int64]:
        """Those of them that ask."""
        return self.dataset.smallest_by_hash(self.rows, self.sampling.queries, self.sampling.seed)

    @cached_property
    def dependent(self) -> npt.NDArray[np.int64]:
        """(n,) equal for instances that are not independent."""
        return links_of(self.dataset, match=self.match, group=self.group).dependent

    @cached_property
    def units(self) -> Units:
        """What the bootstrap draws."""
        return Units.of(self.dependent, self.queries, self.sampling.seed)

    def ranked(self, processes: ProcessGroup) -> dict[str, Ranks]:
        """Return the ranks in every direction."""
        if not len(self.queries):
            return {}
        relevance = Relevance.of(self.dataset, self.match)
        return rank_dataset(self.dataset, self.queries, relevance=relevance, fusion=self.fusion, processes=processes)

    def by_class(
        self, pairs: Mapping[str, Ranks], directions: Mapping[str, dict[str, Measured]]
    ) -> Mapping[str, Any] | None:
        """Return the numbers of each class, and add label retrieval to the directions between two modalities."""
        assert self.label is not None
        seed, labels = self.sampling.seed, codes_of(self.dataset, self.label)
        gallery = self.dataset.smallest_by_hash(self.queries, LABEL_GALLERY, seed)
        asking = np.isin(gallery, self.dataset.smallest_by_hash(self.queries, LABEL_QUERIES, seed))
        found = label_precision(read_batch(self.dataset, gallery), self.dataset.names, labels, asking)
        for name, measured in measure_labels(found, self.units).items():
            directions[name].update(measured)
        return numbers_by_class(self.dataset, self.label, pairs, found, self.units)

    def probe(self) -> Mapping[str, Any] | None:
        """Return the accuracy of linear classifiers of the label."""
        assert self.label is not None
        seed, every = self.sampling.seed, np.arange(len(self.dataset))
        rows = self.dataset.smallest_by_hash(every, LABEL_GALLERY, seed)
        return probe_accuracy(self.dataset, self.label, rows, self.dependent, fusion=self.fusion, seed=seed)

    def zero_shot(self, classes: Dataset, of_class: npt.NDArray[np.int64]) -> Mapping[str, Any]:
        """Return the accuracy of taking the nearest class."""
        seed = self.sampling.seed
        return zero_shot_accuracy(self.dataset, classes, of_class, self.dependent, fusion=self.fusion, seed=seed)

    def facts(self) -> dict[str, Any]:
        """Return what was measured, and how."""
        repeats = repeats_of(self.dataset)
        return {
            "instances": len(self.dataset),
            "instances_in_two": len(self.rows),
            "modalities": list(self.dataset.names),
            "dim": self.dataset.dims[0],
            "queries": len(self.queries),
            "repeats": {name: found.as_dict() for name, found in repeats.items()},
            "repeated": [text for name, found in repeats.items() if (text := found.sentence(name))],
            "fusion": self.fusion,
            "label": self.label,
            "label_queries": min(LABEL_QUERIES, len(self.queries)) if self.label else 0,
            "group": self.group,
            "match": self.match,
            "groups": self.units.number,
            "seed": self.sampling.seed,
            "bootstrap": self.units.draws,
        }


def _measured(ranked: Mapping[str, Ranks], units: Units) -> dict[str, dict[str, Measured]]:
    """Return the metrics of every direction, ``mAP`` and ``R-precision`` where a query has several right answers."""
    several = any(ranks.answers is not None for ranks in ranked.values())
    means = METRICS if several else [name for name in METRICS if name not in SEVERAL]
    samples = {
        name: Sample(
            units.groups[ranks.rows],
            {one: metric(one, ranks) for one in means},
            {"median_rank": metric("median_rank", ranks)},
        )
        for name, ranks in ranked.items()
    }
    chances = {
        name: {one: chance(one, ranked[name]) for one in (*sample.means, *sample.medians)}
        for name, sample in samples.items()
    }
    return units.measure(samples, chances)


def _described(ranks: Ranks, metrics: Mapping[str, Measured]) -> dict[str, Any]:
    return {
        "gallery": ranks.gallery,
        "queries": len(ranks.rows),
        "right_answers": 1.0 if ranks.answers is None else float(ranks.answers.right.mean()),
        "tie_spread": tie_spread(ranks),
        "metrics": {one: measured.as_dict() for one, measured in metrics.items()},
    }


def _as_dicts(measured: Mapping[str, Measured] | None) -> dict[str, Any] | None:
    return None if measured is None else {name: one.as_dict() for name, one in measured.items()}
