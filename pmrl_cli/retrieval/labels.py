"""Mean average precision of finding instances with the query's label in another modality."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pmrl_cli.array_types import Array
from pmrl_cli.retrieval.batches import Batch
from pmrl_cli.retrieval.intervals import Measured, Sample, Units
from pmrl_cli.retrieval.precision import chance_average_precision

__all__ = ["LABEL_METRIC", "LabelPrecision", "average_precision", "label_precision", "measure_labels"]


LABEL_METRIC = "label_mAP"

_GRID = 2**19
"""Scores are compared on a grid of 2^-19 (1.9e-6), coarser than float32 rounding, so that copies tie."""

_SCORES = 2**18  # scores held at once


def average_precision(scores: npt.NDArray[np.float32], relevant: npt.NDArray[np.bool_]) -> Array:
    """Return the average precision of each ranking; tied candidates share the precision below the last of them.

    Args:
        scores: (q, N) cosines.
        relevant: (q, N), at least one True per row.

    Returns: (q,) in (0, 1].

    Source: scikit-learn's ``average_precision_score`` (the step-wise sum over distinct scores).
    """
    # One integer holds score and relevance: a plain ascending sort is then all the ranking there is. It is odd where
    # an answer is relevant, and half of it, rounded up, is the falling score.
    grid = np.clip(scores, -1, 1)
    grid *= -_GRID
    keys = np.rint(grid, out=grid).astype(np.int32)
    keys *= 2
    keys -= relevant
    keys.sort(axis=1)
    width = keys.shape[1]
    places = np.flatnonzero(keys & 1)
    rows, ends, found = places // width, places % width + 1, np.arange(1, len(places) + 1)
    keys += 1
    keys >>= 1
    flat = keys.reshape(-1)
    tied = np.flatnonzero((flat[places] == flat[np.minimum(places + 1, len(flat) - 1)]) & (ends < width))
    if len(tied):
        changes = np.ones(keys.shape, dtype=bool)
        np.not_equal(keys[:, :-1], keys[:, 1:], out=changes[:, :-1])
        last = np.flatnonzero(changes)
        of_tie = last[np.searchsorted(last, places[tied])]
        ends[tied] = of_tie % width + 1
        found[tied] = np.searchsorted(places, of_tie, "right")
    counts = np.bincount(rows, minlength=len(keys))
    before = np.cumsum(counts) - counts
    result: Array = np.bincount(rows, (found - before[rows]) / ends, len(keys)) / counts
    return result


class LabelPrecision(NamedTuple):
    """Label retrieval in one direction.

    Args:
        rows: (q,) int64, ascending: the instances that ask.
        precision: (q,) in (0, 1].
        chance: (q,), the precision a random order is expected to have.
    """

    rows: npt.NDArray[np.int64]
    precision: Array
    chance: Array


def label_precision(
    batch: Batch, names: tuple[str, ...], labels: npt.NDArray[np.int64], asking: npt.NDArray[np.bool_]
) -> dict[str, LabelPrecision]:
    """Return the average precision of label retrieval between every two modalities.

    Candidates are the instances of the batch that have both modalities and a label; relevant are those with the
    query's label, the query's own partner included.

    Args:
        batch: the instances.
        names: of the modalities.
        labels: (n,) int64 by row of the data set, negative where an instance has none.
        asking: (B,) bool, instances that may ask.

    Returns: by direction (``a->b``); one without a query is absent.
    """
    labels = labels[batch.rows]
    results = {}
    for source, first in enumerate(names):
        for target, second in enumerate(names):
            usable = (batch.present[:, source] & batch.present[:, target]).numpy() & (labels >= 0)
            queries = np.flatnonzero(usable & asking)
            if source == target or len(queries) == 0:
                continue
            gallery = np.flatnonzero(usable)
            candidates = batch.embeddings[gallery, target]
            step = max(1, _SCORES // len(gallery))
            values = [
                average_precision(
                    (batch.embeddings[piece, source] @ candidates.mT).numpy(),
                    labels[piece][:, None] == labels[gallery],
                )
                for piece in (queries[start : start + step] for start in range(0, len(queries), step))
            ]
            relevant = np.bincount(labels[gallery])[labels[queries]]
            results[f"{first}->{second}"] = LabelPrecision(
                batch.rows[queries], np.concatenate(values), chance_average_precision(relevant, len(gallery))
            )
    return results


def measure_labels(found: Mapping[str, LabelPrecision], units: Units) -> dict[str, dict[str, Measured]]:
    """Return the mean average precision by direction, then as ``LABEL_METRIC``."""
    samples = {name: Sample(units.groups[one.rows], {LABEL_METRIC: one.precision}) for name, one in found.items()}
    return units.measure(samples, {name: {LABEL_METRIC: float(one.chance.mean())} for name, one in found.items()})
