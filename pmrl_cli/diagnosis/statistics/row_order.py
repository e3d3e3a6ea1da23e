"""Unpaired in this order, paired in another: a join that is off by some rows, or turned round."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pmrl_cli.data.dataset import Dataset
from pmrl_cli.diagnosis.rules import ResultView
from pmrl_cli.diagnosis.rules.pairing import looks_unpaired
from pmrl_cli.diagnosis.statistics.dependence import Scatter, compact, permutation_moments
from pmrl_cli.diagnosis.statistics.pairing import pairing_z
from pmrl_cli.stats.instances import pairs_of
from pmrl_cli.stats.statistic import Statistic

__all__ = ["Order", "best_order", "try_orders"]

Array = npt.NDArray[np.float64]

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

    Only rows in the order of their files can tell: not instances that a model's split has picked out.

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
    x = _unit(dataset.modalities[first].read(rows))
    # Memory maps are read fastest in ascending order.
    ascending = np.sort(partners)
    y = _unit(dataset.modalities[second].read(ascending))[np.searchsorted(ascending, partners)]
    z = _pairing(x, y)
    if z is None:
        return []
    return [Order(shift, turned, Statistic(z, chance=0.0, n=len(rows), null="permutation"))]


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


def try_orders(result: dict[str, Any], dataset: Dataset) -> None:
    """Add the best order of the rows to every pair of a diagnosis that looks unpaired."""
    for a, b in pairs_of(len(dataset.names)):
        pair = f"{dataset.names[a]}|{dataset.names[b]}"
        if pair in result["pair"] and looks_unpaired(ResultView(result), pair):
            order = best_order(dataset, a, b)
            result["pair"][pair]["order"] = None if order is None else order.as_dict()
