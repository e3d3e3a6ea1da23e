"""Unpaired in this order, paired in another: a join that is off by some rows, or turned round."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pmrl_cli.array_types import Array
from pmrl_cli.data.dataset import Dataset
from pmrl_cli.data.repeats import hash_rows
from pmrl_cli.diagnosis.evidence import Evidence
from pmrl_cli.diagnosis.statistics.declared import STATISTIC, detail
from pmrl_cli.diagnosis.statistics.dependence import PAIRED_Z, Scatter, compact, permutation_moments, strength
from pmrl_cli.diagnosis.statistics.pairing import pairing_z
from pmrl_cli.stats.statistic import Statistic

__all__ = ["Order", "best_order"]


_ROWS = 2048
_FURTHEST = 5


@dataclass(frozen=True)
class Order:
    """The order of the second modality's rows in which it is paired best with the first.

    Args:
        shift: row i of the first matches row i + shift of the second (of its reversed rows if ``reversed``).
        reversed: whether they stand in reverse order.
        z: permutation standard deviations of that pairing above chance, the largest over the orders tried.
    """

    shift: int
    reversed: bool
    z: Statistic

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"shift": self.shift, "reversed": self.reversed, "z": self.z.as_dict()}


def best_order(dataset: Dataset, first: int, second: int) -> Order | None:
    """Try shifts of up to five rows, and the reverse, on the first 2,048 rows (all of them for the reverse).

    It needs rows in the order of their files: not instances that a model's split has picked out.

    Args:
        dataset: as read.
        first: number of a modality.
        second: number of another.

    Returns: None where too few rows have both.
    """
    count = min(len(dataset), _ROWS)
    rows = np.arange(count)
    tried: list[Order] = []
    for shift in (*range(-_FURTHEST, 0), *range(1, _FURTHEST + 1)):
        inside = rows[(rows + shift >= 0) & (rows + shift < len(dataset))]
        tried += _try(dataset, first, second, inside, inside + shift, shift, turned=False)
    tried += _try(dataset, first, second, rows, len(dataset) - 1 - rows, 0, turned=True)
    return max(tried, key=lambda order: order.z.value or -math.inf, default=None)


def _try(
    dataset: Dataset,
    first: int,
    second: int,
    rows: npt.NDArray[np.int64],
    partners: npt.NDArray[np.int64],
    shift: int,
    *,
    turned: bool,
) -> list[Order]:
    there = dataset.present[rows, first] & dataset.present[partners, second]
    rows, partners = rows[there], partners[there]
    if len(rows) == 0:
        return []
    x = dataset.modalities[first].read(rows)
    # Memory maps are read fastest in ascending order.
    ascending = np.sort(partners)
    y = dataset.modalities[second].read(ascending)[np.searchsorted(ascending, partners)]
    # Rows that share a vector are one witness of the pairing: the null permutes what is independent.
    for one in (0, 1):
        once = np.sort(np.unique(hash_rows((x, y)[one]), return_index=True)[1])
        x, y = x[once], y[once]
    z = _pairing(_unit(x), _unit(y))
    if z is None:
        return []
    return [Order(shift, turned, Statistic(z, chance=0.0, n=len(x), null="permutation"))]


def _unit(vectors: npt.NDArray[np.float32]) -> Array:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True).astype(np.float64)
    unit: Array = vectors / np.where(lengths == 0, 1, lengths)
    return unit


def _pairing(x: Array, y: Array) -> float | None:
    """Return the larger of the two signs of pairing: of inner products (in one space) and of CKA."""
    found = [pairing_z(x, y)] if x.shape[1] == y.shape[1] else []
    scatter = Scatter.of(compact(x), compact(y))
    cka, moments = scatter.cka(), permutation_moments(scatter)
    if cka is not None and moments is not None and moments[1] > 0:
        found.append((cka - moments[0]) / math.sqrt(moments[1]))
    known = [abs(z) for z in found if z is not None]
    return max(known) if known else None


@detail(
    "order",
    "pair",
    about="only where the pair looks unpaired: the order of the rows in which it is paired best",
    schema={
        "anyOf": [
            {"type": "null"},
            {
                "type": "object",
                "properties": {
                    "shift": {"type": "integer", "description": "row i of a matches row i + shift of b"},
                    "reversed": {"type": "boolean", "description": "of its rows in reverse order"},
                    "z": {**STATISTIC, "description": "permutation deviations of that pairing above chance"},
                },
                "required": ["shift", "reversed", "z"],
                "additionalProperties": False,
            },
        ]
    },
    needs=["rows"],
)
def _order(evidence: Evidence, a: int, b: int) -> dict[str, Any] | None:
    found = evidence.once(strength, a, b).value
    if evidence.dataset is None or found is None or found > PAIRED_Z:
        return None
    order = best_order(evidence.dataset, a, b)
    return None if order is None else order.as_dict()
