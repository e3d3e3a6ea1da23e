"""Joint second moments of all modalities, in two halves, of a bounded sample of instances.

They are what costs in a pass (a d x d product per instance and pair), so they take a sample. The level of an instance
is the number of trailing zero pairs of bits of its group's hash: 4^-l of the instances have level l or a higher one.
The lowest levels are dropped when more than ``limit`` instances are held, so which stay follows from the instances
alone, not from their order or their division into states. The halves, by hash of the group too, are for what is
fitted on one and evaluated on the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pmrl_cli.array_types import Array
from pmrl_cli.diagnosis.state.header import require_array

__all__ = ["JointMoments", "MomentSums", "MomentTotals", "half_of"]


class MomentTotals(NamedTuple):
    """Moments of some instances.

    Args:
        edges: (K + 1,) where the columns of each modality begin.
        counts: (K, K) instances that have both.
        sums: (K, D); row b holds the sums of every modality over the instances that have b too.
        products: (D, D); block (a, b) is the sum of x_a x_b^T over the instances that have both.
    """

    edges: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    sums: Array
    products: Array

    def _columns(self, m: int) -> slice:
        return slice(int(self.edges[m]), int(self.edges[m + 1]))

    def covariance(self, a: int, b: int) -> Array:
        """Return the (d_a, d_b) covariance over the ``counts[a, b]`` instances that have both; zero of none."""
        at_a, at_b, count = self._columns(a), self._columns(b), max(1, int(self.counts[a, b]))
        centre = np.outer(self.sums[b, at_a] / count, self.sums[a, at_b] / count)
        covariance: Array = self.products[at_a, at_b] / count - centre
        return covariance


class MomentSums:
    """Counts, sums and products of some instances; the rows themselves while that is less."""

    def __init__(self, edges: npt.NDArray[np.int64]) -> None:
        k, width = len(edges) - 1, int(edges[-1])
        self.edges = edges
        self.counts = np.zeros((k, k), dtype=np.int64)  # instances that have a and b
        self.sums = np.zeros((k, width))  # row b: of each modality, over the instances that have b too
        self.rows: list[tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]] = []
        self.held = 0
        self.products: Array | None = None

    def add(self, rows: npt.NDArray[np.float32], present: npt.NDArray[np.bool_]) -> None:
        """Add (B, D) rows, zero where absent, and (B, K) presence."""
        if len(rows) == 0:
            return
        self.rows.append((rows, present))
        self.held += len(rows)
        if self.products is not None or self.held > self.edges[-1]:
            self.fold()

    def fold(self) -> None:
        """Put the rows that are held into the products."""
        width = int(self.edges[-1])
        if self.products is None:
            self.products = np.zeros((width, width))
        for rows, present in self.rows:
            wide = rows.astype(np.float64)
            self.products += wide.T @ wide
            has = present.astype(np.float64)
            self.counts += (has.T @ has).astype(np.int64)
            self.sums += has.T @ wide
        self.rows, self.held = [], 0

    def merge(self, other: MomentSums) -> None:
        """Add the instances another has seen."""
        self.counts += other.counts
        self.sums += other.sums
        self.rows += other.rows
        self.held += other.held
        if other.products is not None:
            self.fold()
            assert self.products is not None
            self.products += other.products
        elif self.products is not None or self.held > self.edges[-1]:
            self.fold()


WIDEST = 3072
"""Columns of all modalities together beyond which they are projected, or d x d sums would outgrow memory."""

_LEVELS = 12  # 4^12 times the limit: more instances than there will be


def half_of(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Return 0 or 1 for each key: which half its instance is in."""
    return ((keys >> np.uint64(24)) & np.uint64(1)).astype(np.int64)


def _level_of(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Return the number of whole pairs of low bits that are zero: level l has (1/4)^l of the keys or fewer."""
    level = np.zeros(len(keys), dtype=np.int64)
    for step in range(1, _LEVELS):
        level += (keys & np.uint64(4**step - 1)) == 0
    return level


class JointMoments:
    """Accumulates unit vectors.

    Args:
        dims: columns of each modality.
        limit: instances held at most (unless one group is larger).
        seed: of the projection, where the modalities are too wide together.
    """

    def __init__(self, dims: Sequence[int], *, limit: int, seed: int) -> None:
        self.limit = limit
        widest = max(1, WIDEST // len(dims))
        narrow = sum(dims) <= WIDEST
        # One projection for all modalities of one width: a shared space stays one.
        self._projections = [
            None
            if narrow or dim <= widest
            else np.random.default_rng([seed, dim]).normal(0, widest**-0.5, (dim, widest)).astype(np.float32)
            for dim in dims
        ]
        self.dims = tuple(
            dim if projection is None else widest for dim, projection in zip(dims, self._projections, strict=True)
        )
        self._edges = np.cumsum([0, *self.dims])
        self._floor = 0
        self._sums: dict[tuple[int, int], MomentSums] = {}
        self._sizes = np.zeros(_LEVELS, dtype=np.int64)

    @property
    def projected(self) -> bool:
        """Whether any modality is projected."""
        return any(projection is not None for projection in self._projections)

    @property
    def count(self) -> int:
        """Instances held."""
        return int(self._sizes.sum())

    def add(
        self,
        vectors: Sequence[npt.NDArray[np.float32]],
        present: npt.NDArray[np.bool_],
        keys: npt.NDArray[np.uint64],
    ) -> None:
        """Add B instances.

        Args:
            vectors: (B, d_m) of each modality, zero rows where absent.
            present: (B, K).
            keys: (B,) hashes of the groups (or ids).
        """
        level, half = _level_of(keys), half_of(keys)
        kept = np.flatnonzero(level >= self._floor)
        if len(kept) == 0:
            return
        parts = [
            vector[kept] if projection is None else vector[kept] @ projection
            for vector, projection in zip(vectors, self._projections, strict=True)
        ]
        rows = np.concatenate(parts, axis=1)
        for place in sorted(set(zip(level[kept].tolist(), half[kept].tolist(), strict=True))):
            chosen = (level[kept] == place[0]) & (half[kept] == place[1])
            self._of(place).add(rows[chosen], present[kept][chosen])
            self._sizes[place[0]] += int(chosen.sum())
        self._trim()

    def prune_levels(self, keys: npt.NDArray[np.uint64]) -> None:
        """Drop at once the levels that adding these instances will drop: a saving of time and nothing else.

        Args:
            keys: (n,) hashes of the groups (or ids) of instances that will all be added.
        """
        sizes = np.bincount(_level_of(keys), minlength=_LEVELS)
        sizes[: self._floor] = 0
        self._drop_below(self._surplus(self._sizes + sizes))

    def _of(self, place: tuple[int, int]) -> MomentSums:
        return self._sums.setdefault(place, MomentSums(self._edges))

    def _trim(self) -> None:
        self._drop_below(self._surplus(self._sizes))

    def _surplus(self, sizes: npt.NDArray[np.int64]) -> int:
        """Return the level below which ``sizes`` holds too many: the last level that has any is never below."""
        held = np.flatnonzero(sizes)
        floor = 0
        while len(held) > 1 and sizes[held].sum() > self.limit:
            floor, held = int(held[0]) + 1, held[1:]
        return floor

    def _drop_below(self, floor: int) -> None:
        self._floor = max(self._floor, floor)
        self._sizes[: self._floor] = 0
        self._sums = {place: sums for place, sums in self._sums.items() if place[0] >= self._floor}

    def merge(self, other: JointMoments) -> None:
        """Add the instances another accumulator of the same kind has seen."""
        self._drop_below(other._floor)
        for place, sums in other._sums.items():
            if place[0] >= self._floor:
                self._of(place).merge(sums)
        self._sizes[self._floor :] += other._sizes[self._floor :]
        self._trim()

    def totals(self, half: int | None = None) -> MomentTotals:
        """Return the moments of a half (0 or 1), or of both together."""
        result = MomentSums(self._edges)
        result.fold()
        assert result.products is not None
        for place in sorted(self._sums):
            if half is None or place[1] == half:
                sums = self._sums[place]
                result.counts += sums.counts
                result.sums += sums.sums
                if sums.products is not None:
                    result.products += sums.products
                result.rows += sums.rows
        result.fold()
        return MomentTotals(self._edges, result.counts, result.sums, result.products)

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return the state by name."""
        arrays: dict[str, npt.NDArray[np.generic]] = {"floor": np.array([self._floor]), "sizes": self._sizes}
        for (level, half), sums in sorted(self._sums.items()):
            name = f"{level}.{half}"
            arrays |= {f"{name}.counts": sums.counts, f"{name}.sums": sums.sums}
            if sums.products is not None:
                arrays[f"{name}.products"] = sums.products
            if sums.rows:
                arrays[f"{name}.rows"] = np.concatenate([rows for rows, _ in sums.rows])
                arrays[f"{name}.present"] = np.concatenate([present for _, present in sums.rows])
        return arrays

    def load(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take the arrays of a saved accumulator of the same kind.

        Raises: ValueError for others.
        """
        k, width = len(self.dims), int(self._edges[-1])
        self._floor = int(require_array(arrays, "floor", np.int64, (1,))[0])
        self._sizes = require_array(arrays, "sizes", np.int64, (_LEVELS,))
        for place in {tuple(map(int, name.split(".")[:2])) for name in arrays if "." in name}:
            name, sums = f"{place[0]}.{place[1]}", MomentSums(self._edges)
            sums.counts = require_array(arrays, f"{name}.counts", np.int64, (k, k))
            sums.sums = require_array(arrays, f"{name}.sums", np.float64, (k, width))
            if f"{name}.products" in arrays:
                sums.products = require_array(arrays, f"{name}.products", np.float64, (width, width))
            if f"{name}.rows" in arrays:
                rows = require_array(arrays, f"{name}.rows", np.float32, (None, width))
                sums.rows = [(rows, require_array(arrays, f"{name}.present", np.bool_, (len(rows), k)))]
                sums.held = len(rows)
            self._sums[place[0], place[1]] = sums
