"""What a label says of a space: numbers of each class, a linear probe and zero-shot accuracy, as JSON values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pmrl_cli.data.columns import codes_of, column_of
from pmrl_cli.data.dataset import Dataset
from pmrl_cli.fusion import fuse
from pmrl_cli.retrieval.batches import read_batch
from pmrl_cli.retrieval.by_class import Queries, by_class
from pmrl_cli.retrieval.intervals import Measured, Sample, Units
from pmrl_cli.retrieval.labels import LABEL_METRIC, LabelPrecision
from pmrl_cli.retrieval.linear_probe import FOLDS, held_out_predictions
from pmrl_cli.retrieval.metrics import chance, hits, metric, random_order
from pmrl_cli.retrieval.ranks import Ranks
from pmrl_cli.retrieval.zero_shot import FUSED, rank_classes

__all__ = ["MOST_CLASSES", "numbers_by_class", "probe_accuracy", "zero_shot_accuracy"]

MOST_CLASSES = 200
"""Classes with numbers of their own: the most frequent."""

TOP = (1, 5)
"""Classes among which the right one counts as found."""

Numbers = npt.NDArray[np.int64]


def numbers_by_class(
    dataset: Dataset,
    label: str,
    ranked: Mapping[str, Ranks],
    found: Mapping[str, LabelPrecision],
    units: Units,
) -> dict[str, Any]:
    """Return R@1, MRR and label_mAP of the queries of each class, means over the directions.

    Args:
        dataset: the instances.
        label: side column of labels.
        ranked: by direction between two modalities.
        found: likewise, the label retrieval.
        units: what the bootstrap draws.

    Returns: ``classes`` by name, of the ``MOST_CLASSES`` that most instances have, most frequent first, each with
        ``instances`` and ``metrics``; and how many ``others`` there are.
    """
    codes = codes_of(dataset, label)
    counts = np.bincount(codes[codes >= 0])
    listed = np.argsort(-counts, kind="stable")[:MOST_CLASSES]
    place = np.full(len(counts) + 1, -1)  # the last for those without a label
    place[listed] = np.arange(len(listed))
    metrics = {
        name: [Queries(r.rows, metric(name, r), metric(name, random_order(r))) for r in ranked.values()]
        for name in ("R@1", "MRR")
    }
    metrics[LABEL_METRIC] = [Queries(*one) for one in found.values()]
    measured = by_class(metrics, place[codes], units)
    names = column_of(dataset, label).dictionary_encode().dictionary.to_pylist()
    return {
        "classes": {
            str(names[c]): {
                "instances": int(counts[c]),
                "metrics": {name: one.as_dict() for name, one in measured.get(at, {}).items()},
            }
            for at, c in enumerate(listed)
        },
        "others": len(counts) - len(listed),
    }


def probe_accuracy(
    dataset: Dataset, label: str, rows: Numbers, dependent: Numbers, *, fusion: str, seed: int
) -> dict[str, Any] | None:
    """Return how often a linear classifier of the vectors is right about the label of instances it has not seen.

    Args:
        dataset: the instances.
        label: side column of labels.
        rows: ascending, those that take part; without a label, or of a class of fewer than ``FOLDS``, they do not.
        dependent: (n,) equal for instances that are not independent: they are in one fold.
        fusion: how the modalities of an instance are fused.
        seed: of the folds and the draws.

    Returns: ``modalities`` by name and, of two or more, ``fused``, each with ``instances``, ``accuracy`` (chance:
        always the most frequent class) and ``by_class`` (see ``zero_shot_accuracy``), the number of ``classes`` and
        of ``folds``; None without two classes in as many groups as there are folds.
    """
    codes = codes_of(dataset, label)[rows]
    counts = np.bincount(codes[codes >= 0], minlength=1)
    frequent = np.flatnonzero(counts >= FOLDS)
    rows = rows[np.isin(codes, frequent)]
    classes = np.searchsorted(frequent, codes[np.isin(codes, frequent)])
    if len(frequent) < 2:
        return None
    batch = read_batch(dataset, rows)
    vectors = {name: batch.embeddings[:, m] for m, name in enumerate(dataset.names)}
    present = {name: batch.present[:, m].numpy() for m, name in enumerate(dataset.names)}
    if len(dataset.names) > 1:
        vectors[FUSED] = fuse(batch.embeddings, batch.present, fusion)
        present[FUSED] = np.ones(len(rows), dtype=bool)
    units = Units.of(dependent, rows, seed)
    right, most, each = {}, {}, {}
    names = column_of(dataset, label).dictionary_encode().dictionary.to_pylist()
    for name, has in present.items():
        groups = units.groups[rows[has]]
        predicted = held_out_predictions(vectors[name].numpy()[has], classes[has], groups, seed=seed)
        if predicted is not None:
            hit = (predicted == classes[has]).astype(float)
            right[name] = Sample(groups, {"accuracy": hit})
            each[name] = _of_each_class(hit, frequent[classes[has]], names)
            most[name] = float(np.bincount(classes[has]).max() / has.sum())
    if not right:
        return None
    draws = units.resample(right)
    return {
        "modalities": {
            name: {
                "instances": len(sample.groups),
                "accuracy": Measured(sample.values()["accuracy"], most[name], draws[name, "accuracy"]).as_dict(),
                "by_class": each[name],
            }
            for name, sample in right.items()
        },
        "classes": len(frequent),
        "folds": FOLDS,
    }


def zero_shot_accuracy(
    dataset: Dataset, classes: Dataset, of_class: Numbers, dependent: Numbers, *, fusion: str, seed: int
) -> dict[str, Any]:
    """Return how often the class of an instance is the nearest of all, and among the five nearest.

    Args:
        dataset: the instances.
        classes: of one modality.
        of_class: (n,) row of the class of each instance, -1 for none.
        dependent: (n,) equal for instances that are drawn together.
        fusion: how the modalities of an instance are fused.
        seed: of the draws.

    Returns: ``modalities`` by name and, of two or more, ``fused``, each with ``instances`` and ``metrics`` ``top-1``
        and ``top-5`` (of more than five classes), ties in random order, and ``by_class``: of each class by name its
        ``instances`` and the share ``right``; the name of the modality ``of`` the
        classes and their number ``classes``.
    """
    ranked = rank_classes(dataset, classes, of_class, fusion=fusion)
    units = Units.of(dependent, np.flatnonzero(of_class >= 0), seed)
    tops = [top for top in TOP if top == 1 or len(classes) > top]
    samples = {
        name: Sample(units.groups[ranks.rows], {f"top-{top}": hits(ranks, top) for top in tops})
        for name, ranks in ranked.items()
    }
    draws = units.resample(samples)
    return {
        "modalities": {
            name: {
                "instances": len(ranks.rows),
                "metrics": {
                    f"top-{top}": Measured(
                        samples[name].values()[f"top-{top}"], chance(f"R@{top}", ranks), draws[name, f"top-{top}"]
                    ).as_dict()
                    for top in tops
                },
                "by_class": _of_each_class(hits(ranks, 1), of_class[ranks.rows], classes.ids.to_pylist()),
            }
            for name, ranks in ranked.items()
        },
        "of": classes.names[0],
        "classes": len(classes),
    }


def _of_each_class(right: npt.NDArray[np.floating], codes: Numbers, names: Sequence[object]) -> dict[str, Any]:
    """Return how many instances each class has, and which share of them was right."""
    found, places = np.unique(codes, return_inverse=True)
    counts, sums = np.bincount(places), np.bincount(places, weights=right)
    return {
        str(names[code]): {"instances": int(count), "right": float(total / count)}
        for code, count, total in zip(found, counts, sums, strict=True)
    }
