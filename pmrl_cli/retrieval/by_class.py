"""Retrieval class by class: which classes are found by their partners, and which are not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse

from pmrl_cli.retrieval.intervals import Array, Measured, Units, weights_of

__all__ = ["Queries", "by_class"]

Numbers = npt.NDArray[np.int64]


class Queries(NamedTuple):
    """One metric of the queries of one direction.

    Args:
        rows: (q,) int64, which instances ask.
        values: (q,) of the metric.
        chance: (q,), what a random order gives.
    """

    rows: Numbers
    values: Array
    chance: Array


def by_class(
    metrics: Mapping[str, Sequence[Queries]], classes: Numbers, units: Units
) -> dict[int, dict[str, Measured]]:
    """Return each metric of each class: its mean over the queries of the class, then over the directions.

    Args:
        metrics: by metric, its queries in each direction.
        classes: (n,) class of each instance, from 0 on; -1 for none.
        units: what the bootstrap draws, of every instance that asks; the draws are those of ``resample``.

    Returns: by class, those that ask; a direction without a query of the class does not count for it.
    """
    count = int(classes.max(initial=-1)) + 1
    found: dict[int, dict[str, Measured]] = {}
    for name, directions in metrics.items():
        parts: list[list[Measured]] = [[] for _ in range(count)]
        for one in directions:
            kept = classes[one.rows] >= 0
            of, at = classes[one.rows[kept]], units.groups[one.rows[kept]]
            queries = np.bincount(of, minlength=count)
            shape = (units.number, count)
            ones = sparse.csr_array((np.ones(len(of)), (at, of)), shape=shape)
            sums = sparse.csr_array((one.values[kept], (at, of)), shape=shape)
            weights = weights_of(units.number, units.draws, units.seed)
            drawn = [_means(some @ sums, some @ ones) for some in weights]
            resampled = np.concatenate([np.empty((0, count)), *drawn])
            for c in np.flatnonzero(queries).tolist():
                those = kept.nonzero()[0][of == c]
                measured = Measured(float(one.values[those].mean()), float(one.chance[those].mean()), resampled[:, c])
                parts[c].append(measured)
        for number, measures in enumerate(parts):
            if measures:
                found.setdefault(number, {})[name] = Measured.mean(measures)
    return found


def _means(sums: Array, counts: Array) -> Array:
    means: Array = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
    return means
