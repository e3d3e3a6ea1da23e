"""The reservoir: the instances whose hashes are smallest, the one sample that costly statistics use.

A uniform choice without replacement that no order of instances and no division into states can move. Groups hash as
one and are kept whole: the group that the limit cuts is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pmrl_cli.array_types import Array
from pmrl_cli.data.links import components, join_items
from pmrl_cli.data.repeats import repeats_among
from pmrl_cli.diagnosis.state.header import require_array
from pmrl_cli.errors import Place, StateError
from pmrl_cli.retrieval.batches import Batch
from pmrl_cli.retrieval.relevance import Relevance

__all__ = ["Reservoir", "ReservoirSample"]

Hashes = npt.NDArray[np.uint64]
NO_VALUE = np.uint64(0)
"""Hash of the label or the match of an instance that has none."""


class Reservoir:
    """Instances with the smallest (hash of group, hash of id).

    One more than ``limit`` is held, which shows whether the last group is whole.

    Args:
        dims: columns of each modality.
        limit: instances.
    """

    def __init__(self, dims: Sequence[int], limit: int) -> None:
        self.limit = limit
        self.keys: Hashes = np.zeros(0, dtype=np.uint64)
        self.hashes: Hashes = np.zeros(0, dtype=np.uint64)
        self.labels: Hashes = np.zeros(0, dtype=np.uint64)
        self.matches: Hashes = np.zeros(0, dtype=np.uint64)
        self.items: Hashes = np.zeros((0, len(dims)), dtype=np.uint64)
        self.ids: npt.NDArray[np.object_] = np.zeros(0, dtype=object)
        self.present: npt.NDArray[np.bool_] = np.zeros((0, len(dims)), dtype=bool)
        self.vectors: list[npt.NDArray[np.float32]] = [np.zeros((0, dim), dtype=np.float32) for dim in dims]

    def candidates(self, keys: Hashes) -> npt.NDArray[np.int64]:
        """Return which of (B,) instances may enter."""
        if len(self.keys) <= self.limit:
            return np.arange(len(keys))
        return np.flatnonzero(keys <= self.keys[-1])

    def add(
        self,
        keys: Hashes,
        hashes: Hashes,
        labels: Hashes,
        matches: Hashes,
        ids: npt.NDArray[np.object_],
        present: npt.NDArray[np.bool_],
        vectors: Sequence[npt.NDArray[np.float32]],
        items: Hashes,
    ) -> None:
        """Add B instances.

        Args:
            keys: (B,) hash of the group, or of the id where there are no groups.
            hashes: (B,) hash of the id.
            labels: (B,) hash of the label, ``NO_VALUE`` for none.
            matches: (B,) hash of what an instance shows, ``NO_VALUE`` for none.
            ids: (B,) str.
            present: (B, K).
            vectors: (B, d_m) of each modality, unit length, zero where absent.
            items: (B, K) hashes of the vectors as they were read, 0 where absent.
        """
        keys, hashes = np.concatenate([self.keys, keys]), np.concatenate([self.hashes, hashes])
        order = np.lexsort((hashes, keys))[: self.limit + 1]
        self.keys, self.hashes = keys[order], hashes[order]
        self.labels = np.concatenate([self.labels, labels])[order]
        self.matches = np.concatenate([self.matches, matches])[order]
        self.ids = np.concatenate([self.ids, ids])[order]
        self.present = np.concatenate([self.present, present])[order]
        self.items = np.concatenate([self.items, items])[order]
        self.vectors = [np.concatenate([a, b])[order] for a, b in zip(self.vectors, vectors, strict=True)]

    def merge(self, other: Reservoir, *, name: str) -> None:
        """Add the instances another reservoir holds.

        Args:
            other: of other instances.
            name: of the other, for the error.

        Raises: StateError if the two share an instance.
        """
        shared = np.intersect1d(self.hashes, other.hashes, return_indices=True)[1]
        if len(shared):
            raise StateError(
                what="states overlap",
                at=Place(name, instance_id=self.ids[shared[0]]),
                found="an instance that an earlier state has too",
                expected="every instance in one state",
                next_step="Divide the instances among the states, and merge each state once.",
            )
        self.add(
            other.keys,
            other.hashes,
            other.labels,
            other.matches,
            other.ids,
            other.present,
            other.vectors,
            other.items,
        )

    def chosen(self, limit: int | None = None) -> ReservoirSample:
        """Return the instances: the smallest whole groups that a limit holds, or part of one if it is larger.

        Args:
            limit: instances at most; None for that of the reservoir.
        """
        limit = self.limit if limit is None else min(limit, self.limit)
        size = min(len(self.keys), limit)
        if len(self.keys) > limit and self.keys[0] != self.keys[limit]:
            size = int(np.searchsorted(self.keys[:limit], self.keys[limit]))
        return ReservoirSample(self, size)

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return the state by name."""
        encoded = [str(one).encode() for one in self.ids]
        return {
            "keys": self.keys,
            "hashes": self.hashes,
            "labels": self.labels,
            "matches": self.matches,
            "ids": np.frombuffer(b"".join(encoded), dtype=np.uint8),
            "id_ends": np.cumsum([len(one) for one in encoded], dtype=np.int64),
            "present": self.present,
            "items": self.items,
            **{f"vectors.{m}": vectors for m, vectors in enumerate(self.vectors)},
        }

    def load(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take the arrays of a saved reservoir of the same kind.

        Raises: ValueError for others.
        """
        self.keys = require_array(arrays, "keys", np.uint64, (None,))
        size = len(self.keys)
        self.hashes, self.labels = (require_array(arrays, name, np.uint64, (size,)) for name in ("hashes", "labels"))
        text = require_array(arrays, "ids", np.uint8, (None,)).tobytes()
        ends = require_array(arrays, "id_ends", np.int64, (size,)).tolist()
        self.ids = np.empty(size, dtype=object)
        self.ids[:] = [text[start:end].decode() for start, end in zip([0, *ends][:size], ends, strict=True)]
        self.present = require_array(arrays, "present", np.bool_, (size, self.present.shape[1]))
        # A state of an older pmrl holds no hashes of matches and of vectors: each is then taken for one of its own.
        self.matches = np.full(size, NO_VALUE)
        if "matches" in arrays:
            self.matches = require_array(arrays, "matches", np.uint64, (size,))
        self.items = np.zeros((size, self.present.shape[1]), dtype=np.uint64)
        if "items" in arrays:
            self.items = require_array(arrays, "items", np.uint64, (size, self.present.shape[1]))
        self.vectors = [
            require_array(arrays, f"vectors.{m}", np.float32, (size, vectors.shape[1]))
            for m, vectors in enumerate(self.vectors)
        ]


def _items(hashes: Hashes, present: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return the items of a modality; a present vector whose hash is not known (0) is one of its own."""
    items = repeats_among(hashes, present & (hashes > 0)).items
    alone = np.flatnonzero(items < 0)
    items[alone] = items.max(initial=-1) + 1 + np.arange(len(alone))
    return items


def _codes(hashes: Hashes) -> npt.NDArray[np.int64]:
    """Return codes of hashed values, -1 for none."""
    codes = np.unique(hashes, return_inverse=True)[1].astype(np.int64)
    return np.where(hashes == NO_VALUE, -1, codes)


class ReservoirSample:
    """The instances of a reservoir.

    Args:
        reservoir: where they come from.
        size: how many, from its start.

    Attributes:
        ids: (r,) str.
        keys: (r,) hash of the group (or id).
        hashes: (r,) hash of the id.
        relevance: of the instances: equal vectors of a modality are one item, and equal matches match.
        groups: (r,) int64 code of what is not independent: the group, and instances that match or share a vector.
        labels: (r,) int64 code of the label, -1 for none.
        present: (r, K) bool.
        vectors: (r, d_m) float32 of each modality.
    """

    def __init__(self, reservoir: Reservoir, size: int) -> None:
        self.ids = reservoir.ids[:size]
        self.keys = reservoir.keys[:size]
        self.hashes = reservoir.hashes[:size]
        self.present = reservoir.present[:size]
        items = np.stack(
            [_items(*of_one) for of_one in zip(reservoir.items[:size].T, self.present.T, strict=True)], 1
        )
        match = _codes(reservoir.matches[:size])
        self.relevance = Relevance(items, np.where(match < 0, size + np.arange(size), match))
        keys = np.unique(self.keys, return_inverse=True)[1].astype(np.int64)
        same, _ = join_items(size, list(np.where(self.present, items, -1).T), [match])
        self.groups = components(size, [keys, same])
        self.labels = _codes(reservoir.labels[:size])
        self.vectors = [vectors[:size] for vectors in reservoir.vectors]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def alone(self) -> bool:
        """Whether each instance is independent of all others."""
        return len(self) == 0 or int(self.groups.max()) + 1 == len(self)

    def both(self, a: int, b: int) -> tuple[Array, Array, npt.NDArray[np.int64]]:
        """Return the float64 vectors of two modalities of the instances that have both, and their groups."""
        kept = self.present[:, [a, b]].all(1)
        first, second = (self.vectors[m][kept].astype(np.float64) for m in (a, b))
        return first, second, self.groups[kept]

    def batch(self) -> Batch:
        """Return them as one batch; the modalities must be of one width."""
        stacked = torch.from_numpy(np.stack(self.vectors, axis=1))
        return Batch(
            np.arange(len(self), dtype=np.int64), stacked, torch.from_numpy(np.ascontiguousarray(self.present))
        )
