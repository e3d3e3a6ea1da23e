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
    sums = [(name, _Sums.of(one, classes, count, units)) for name, parts in metrics.items() for one in parts]
    drawn: list[list[Array]] = [[np.empty((0, count))] for _ in sums]
    for weights in weights_of(units.number, units.draws, units.seed):
        for (_, one), means in zip(sums, drawn, strict=True):
            means.append(_means(weights @ one.values, weights @ one.queries))
    measured: dict[tuple[int, str], list[Measured]] = {}
    for (name, one), means in zip(sums, drawn, strict=True):
        resampled = np.concatenate(means)
        number = one.queries.sum(axis=0)
        value, chance = (_means(part.sum(axis=0), number) for part in (one.values, one.chance))
        for c in np.flatnonzero(number).tolist():
            found = Measured(float(value[c]), float(chance[c]), resampled[:, c])
            measured.setdefault((c, name), []).append(found)
    classified: dict[int, dict[str, Measured]] = {}
    for (c, name), parts in measured.items():
        classified.setdefault(c, {})[name] = Measured.mean(parts)
    return classified


class _Sums(NamedTuple):
    """Sums over the queries of each group and class, (groups, classes): how many, their values and their chance."""

    queries: sparse.csr_array
    values: sparse.csr_array
    chance: sparse.csr_array

    @classmethod
    def of(cls, one: Queries, classes: Numbers, count: int, units: Units) -> _Sums:
        kept = classes[one.rows] >= 0
        at = units.groups[one.rows[kept]], classes[one.rows[kept]]
        ones = np.ones(int(kept.sum()))
        shape = units.number, count
        return cls(
            *(sparse.csr_array((part, at), shape=shape) for part in (ones, one.values[kept], one.chance[kept]))
        )


def _means(sums: Array, counts: Array) -> Array:
    means: Array = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
    return means
