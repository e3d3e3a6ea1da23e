"""The state of a pass over the data: bounded, additive, and the same whatever the division into states.

Each instance is added once: its numbers to the summaries, its vectors to sums, to the joint moments if it is
of their sample, and to the reservoir if its hash is among the smallest. Two states of disjoint instances merge to
the state of all of them, to float64 rounding. Everything ``diagnose`` reports follows from one state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from pmrl_cli.data.columns import column_of
from pmrl_cli.data.dataset import Dataset
from pmrl_cli.data.ids import hash_ids, hash_values
from pmrl_cli.data.repeats import hash_rows
from pmrl_cli.data.split import group_keys
from pmrl_cli.diagnosis.state.header import Header, require_array
from pmrl_cli.diagnosis.state.reservoir import NO_VALUE, Reservoir
from pmrl_cli.diagnosis.state.second_moments import JointMoments
from pmrl_cli.diagnosis.state.summaries import Summaries, numbers_of, ranges_of
from pmrl_cli.errors import Place, StateError
from pmrl_cli.retrieval.batches import Batch
from pmrl_cli.stats.instances import instance_statistics

__all__ = ["MOMENTS", "RESERVOIR", "State"]

RESERVOIR = 4096
Hashes = npt.NDArray[np.uint64]
MOMENTS = 2**16
"""Instances in the joint moments at most: they cost d x d a pair, and at 20 instances a column more add little."""

_HASHED = 2**16  # ids hashed at a time
_GROUPS = 2**16  # group hashes kept: up to so many groups are counted exactly, more within 1 %


class State:
    """What a pass has seen.

    Args:
        header: what it is about.

    Attributes:
        instances: with two modalities or more.
        counts: (K, K) instances that have both; on the diagonal those that have one, of these instances.
        sums: per modality (K, d_m): sums of its unit vectors over the instances that have modality b too.
        summaries: of the numbers of ``numbers_of``.
        moments: joint second moments.
        reservoir: the sample.
    """

    def __init__(self, header: Header) -> None:
        self.header = header
        k = len(header.names)
        self.instances = 0
        self.counts = np.zeros((k, k), dtype=np.int64)
        self.sums = [np.zeros((k, dim)) for dim in header.dims]
        lows, highs = ranges_of(k)
        self.summaries = Summaries(lows, highs, grouped=header.unit is not None)
        self.moments = JointMoments(header.dims, limit=header.moments, seed=header.seed)
        self.reservoir = Reservoir(header.dims, header.reservoir)
        self._groups: npt.NDArray[np.uint64] = np.zeros(0, dtype=np.uint64)
        self.shards: npt.NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        """Which of the header's shards are in it, from 0 on; none where it is no shard."""

    @classmethod
    def of(cls, dataset: Dataset, header: Header) -> Self:
        """Return the state of all instances of a data set that have two modalities or more."""
        state = cls(header)
        rows = np.flatnonzero(dataset.present.sum(1) >= 2)
        pieces = (rows[start : start + _HASHED] for start in range(0, len(rows), _HASHED))
        hashed = [_keys(dataset, piece, header) for piece in pieces]
        keys, hashes = (np.concatenate([pair[i] for pair in hashed] or [state._groups]) for i in range(2))
        state.moments.prune_levels(keys)
        start = 0
        for block in dataset.blocks(rows):
            assert isinstance(block, np.ndarray)
            stop = start + len(block)
            state._add(dataset, block, keys[start:stop], hashes[start:stop])
            start = stop
        return state

    @property
    def groups(self) -> int:
        """Independent units: groups, else matches, else instances."""
        if self.header.unit is None:
            return self.instances
        if len(self._groups) <= _GROUPS:
            return len(self._groups)
        # The k-th smallest of n uniform hashes lies near k / n (Bar-Yossef et al., RANDOM 2002).
        return round(_GROUPS / (float(self._groups[_GROUPS]) / 2.0**64))

    def pair_means(self, a: int, b: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return the mean vectors of two modalities over the instances that have both."""
        count = self.counts[a, b]
        return self.sums[a][b] / count, self.sums[b][a] / count

    def _add(self, dataset: Dataset, rows: npt.NDArray[np.int64], keys: Hashes, hashes: Hashes) -> None:
        """Add instances whose hashes (of the group, of the id) are known."""
        present = np.ascontiguousarray(dataset.present[rows])
        vectors = [features.read(rows) for features in dataset.modalities]
        if dataset.hashes is None:
            items = np.stack([hash_rows(vector) for vector in vectors], axis=1) * present
        else:
            items = dataset.hashes[rows]
        vectors = [_unit(vector) for vector in vectors]
        if not present.all():
            vectors = [vector * present[:, [m]] for m, vector in enumerate(vectors)]
        self.instances += len(rows)
        has = present.astype(np.float64)
        self.counts += (has.T @ has).astype(np.int64)
        for m, vector in enumerate(vectors):
            self.sums[m] += _partner_sums(has, vector)
        if self.header.shared:
            stacked = torch.from_numpy(np.stack(vectors, axis=1))
            batch = Batch(rows, stacked, torch.from_numpy(present))
            self.summaries.add(numbers_of(instance_statistics(batch), present), keys)
        self.moments.add(vectors, present, keys)
        chosen = self.reservoir.candidates(keys)
        if len(chosen):
            self.reservoir.add(
                keys[chosen],
                hashes[chosen],
                _value_hashes(dataset, rows[chosen], self.header.label, self.header.seed),
                _value_hashes(dataset, rows[chosen], self.header.match, self.header.seed),
                np.array(dataset.ids.take(rows[chosen]).to_pylist(), dtype=object),
                present[chosen],
                [vector[chosen] for vector in vectors],
                items[chosen],
            )
        if self.header.unit is not None:
            self._add_groups(keys)

    def _add_groups(self, keys: npt.NDArray[np.uint64]) -> None:
        self._groups = np.unique(np.concatenate([self._groups, keys]))[: _GROUPS + 1]

    def merge(self, other: State, *, name: str = "the other") -> None:
        """Add the instances another state has seen.

        Args:
            other: of other instances; it is not changed.
            name: of the other, for errors.

        Raises: StateError if the two are not about the same, or share an instance.
        """
        mine, theirs = self.header.as_dict(), other.header.as_dict()
        for field, value in mine.items():
            if value != theirs[field]:
                raise StateError(
                    what="states do not fit together",
                    at=Place(name),
                    found=f"{field} {theirs[field]!r}",
                    expected=f"{value!r} as in the first",
                    next_step="Make all states with the same options.",
                )
        twice = np.intersect1d(self.shards, other.shards)
        if len(twice):
            raise StateError(
                what="states share instances",
                at=Place(name),
                found=f"shard {twice[0] + 1}/{self.header.shards} a second time",
                expected="each shard once",
                next_step="Leave one of the two out.",
            )
        self.shards = np.union1d(self.shards, other.shards)
        self.reservoir.merge(other.reservoir, name=name)
        self.instances += other.instances
        self.counts += other.counts
        for mine_of, theirs_of in zip(self.sums, other.sums, strict=True):
            mine_of += theirs_of
        self.summaries.merge(other.summaries)
        self.moments.merge(other.moments)
        self._add_groups(other._groups)

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return everything but the header, by name."""
        parts: dict[str, Mapping[str, npt.NDArray[np.generic]]] = {
            "summaries": self.summaries.arrays(),
            "moments": self.moments.arrays(),
            "reservoir": self.reservoir.arrays(),
        }
        return {
            "instances": np.array([self.instances]),
            "counts": self.counts,
            "groups": self._groups,
            **({"shards": self.shards} if len(self.shards) else {}),
            **{f"sums.{m}": sums for m, sums in enumerate(self.sums)},
            **{f"{part}.{name}": array for part, arrays in parts.items() for name, array in arrays.items()},
        }

    @classmethod
    def from_arrays(cls, header: Header, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Return the state that ``arrays`` came from.

        Raises: ValueError for arrays that are of no such state.
        """
        state = cls(header)
        state.instances = int(require_array(arrays, "instances", np.int64, (1,))[0])
        state.counts = require_array(arrays, "counts", np.int64, state.counts.shape)
        state._groups = require_array(arrays, "groups", np.uint64, (None,))
        if "shards" in arrays:
            state.shards = require_array(arrays, "shards", np.int64, (None,))
        state.sums = [require_array(arrays, f"sums.{m}", np.float64, sums.shape) for m, sums in enumerate(state.sums)]
        for part in ("summaries", "moments", "reservoir"):
            own = {name.removeprefix(f"{part}."): a for name, a in arrays.items() if name.startswith(f"{part}.")}
            getattr(state, part).load(own)
        return state


def _unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Bring vectors to unit length, in place; one without length stays zero."""
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    vectors /= np.where(lengths == 0, 1, lengths)[:, None]
    return vectors


def _partner_sums(has: npt.NDArray[np.float64], vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    if has.all():  # the usual case, and much cheaper
        return np.broadcast_to(vectors.sum(0, dtype=np.float64), (has.shape[1], vectors.shape[1]))
    sums: npt.NDArray[np.float64] = has.T @ vectors.astype(np.float64)
    return sums


def _keys(dataset: Dataset, rows: npt.NDArray[np.int64], header: Header) -> tuple[Hashes, Hashes]:
    """Return the hashes of the units of some rows (of their ids where those are the units), and of their ids."""
    ids = dataset.ids.take(rows)
    hashes = hash_ids(ids, header.seed)
    if header.unit is None:
        return hashes, hashes
    part = Dataset(ids, (), dataset.present[rows], {header.unit: column_of(dataset, header.unit).take(rows)})
    return hash_ids(group_keys(part, header.unit), header.seed), hashes


def _value_hashes(dataset: Dataset, rows: npt.NDArray[np.int64], column: str | None, seed: int) -> Hashes:
    """Return the hashes of a side column, ``NO_VALUE`` for nulls and without a column."""
    if column is None:
        return np.full(len(rows), NO_VALUE)
    return hash_values(column_of(dataset, column).take(rows), seed)
