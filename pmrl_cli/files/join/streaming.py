"""Streaming: every row of a modality is read once, checked, and written where its instance stands."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from hashlib import sha256
from threading import Event
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pmrl_cli.array_types import Mask
from pmrl_cli.data.repeats import hash_rows
from pmrl_cli.data.validate import BadRows, row_faults
from pmrl_cli.errors import DataError, Place
from pmrl_cli.files.durable.npy import RowStore, npy_header, runs
from pmrl_cli.files.formats.contents import Block, Vectors, to_float32
from pmrl_cli.files.join.modalities import Modality

__all__ = ["RowCheck", "stream"]


@dataclass(frozen=True)
class RowCheck:
    """What streaming one modality found.

    Args:
        missing: (n,) bool, instances whose vector is null or all NaN.
        bad: (n,) bool, instances whose vector cannot be used.
        bad_rows: the bad rows by place.
        digest: SHA-256 (hex) of the npy file of the rows as stored; None where they did not come in instance order.
        hashes: (n,) uint64 of the vectors (``pmrl_cli.data.repeats``), 0 where missing or bad; None where the rows
            were stored, and can be hashed there.
    """

    missing: Mask
    bad: Mask
    bad_rows: BadRows
    digest: str | None = None
    hashes: npt.NDArray[np.uint64] | None = None


class _Rows(NamedTuple):
    """B checked rows of a modality that have an instance.

    Args:
        where: (B,) instance of each, or where it is stored.
        raw: (B, d) as the file holds them.
        values: (B, d) float32.
        missing: (B,) bool.
        bad: (B,) bool.
    """

    where: npt.NDArray[np.int64]
    raw: npt.NDArray[np.generic]
    values: npt.NDArray[np.float32]
    missing: Mask
    bad: Mask


def stream(
    modality: Modality,
    positions: npt.NDArray[np.int64] | None,
    instances: int,
    target: RowStore | None,
    ended: Event | None = None,
) -> RowCheck:
    """Stream one modality into its row store, or only check it.

    Args:
        modality: what to read.
        positions: (rows,) instance of each row (where it is stored) or -1; None if row i is instance i.
        instances: n, or how many rows are stored.
        target: receives the rows, zeros where missing or bad; None to check only.
        ended: set where the rest is no longer needed.
    """
    found = RowCheck(np.zeros(instances, dtype=np.bool_), np.zeros(instances, dtype=np.bool_), BadRows())
    blocks = _marked(_checked_rows(modality, positions, found.bad_rows, ended), found)
    if target is None:
        hashes = np.zeros(instances, dtype=np.uint64)
        for rows in blocks:
            hashes[rows.where] = np.where(rows.missing | rows.bad, 0, hash_rows(rows.values))
        return replace(found, hashes=hashes)
    if modality.averaged:
        means = _Means(target, instances)
        for rows in blocks:
            means.add(rows)
        return replace(found, missing=found.missing & (means.counts == 0))
    with closing(_Writer(target, instances)) as writer:
        for rows in blocks:
            writer.add(rows)
    return replace(found, digest=writer.digest())


def _checked_rows(
    modality: Modality, positions: npt.NDArray[np.int64] | None, bad_rows: BadRows, ended: Event | None
) -> Iterator[_Rows]:
    """Yield the rows of all shards that have an instance; the bad ones are added to ``bad_rows`` by their place."""
    first = 0
    for shard in modality.shards:
        row = first
        for block, null in _with_ids_in_errors(shard, modality.ids, first):
            if ended is not None and ended.is_set():
                return
            rows = np.arange(row, row + len(block))
            row += len(block)
            where = rows if positions is None else positions[rows]
            if positions is not None and (kept := where >= 0).sum() < len(where):
                block, rows, where = block[kept], rows[kept], where[kept]
                null = None if null is None else null[kept]
            values = to_float32(block, shard.dtype)
            missing, bad = row_faults(values)
            if null is not None:
                missing, bad = missing | null, bad & ~null
            for at in np.flatnonzero(bad):
                source = int(rows[at])
                bad_rows.add(Place(shard.file, shard.name, source - first, modality.ids[source].as_py()), values[at])
            yield _Rows(where, block, values, missing, bad)
        first = row


def _marked(blocks: Iterable[_Rows], found: RowCheck) -> Iterator[_Rows]:
    """Pass rows on, those missing and bad marked by instance."""
    for rows in blocks:
        found.missing[rows.where[rows.missing]] = True
        found.bad[rows.where[rows.bad]] = True
        yield rows


def _with_ids_in_errors(shard: Vectors, ids: pa.LargeStringArray, first: int) -> Iterator[Block]:
    """Stream a shard whose ids begin at ``first``; an error that names rows of it is given their ids."""

    def named(place: Place) -> Place:
        return place if place.row is None else replace(place, instance_id=ids[first + place.row].as_py())

    try:
        yield from shard.blocks()
    except DataError as error:
        if error.at is None or error.at.row is None:
            raise
        raise DataError(
            error.what,
            found=error.found,
            expected=error.expected,
            next_step=error.next_step,
            at=named(error.at),
            others=[named(place) for place in error.others],
            total=error.total,
        ) from None


class _Writer:
    """Writes rows to their instances, and hashes them beside as long as they come in instance order."""

    def __init__(self, target: RowStore, instances: int) -> None:
        self._target = target
        self._instances = instances
        self._sha256 = sha256(npy_header(target.dtype, instances, target.dim))
        self._hasher = ThreadPoolExecutor(1)
        self._hashing: Future[None] | None = None
        self._next: int | None = 0
        """Instance whose row comes next; None once the rows came in another order."""

    def close(self) -> None:
        """Wait for the last block to be hashed."""
        self._hasher.shutdown()

    def add(self, rows: _Rows) -> None:
        """Write rows, zeros for those missing or bad."""
        if self._hashing is not None:
            self._hashing.result()  # the reader fills the block before this one again
        where, target = rows.where, self._target
        if not len(where):
            return
        stored = rows.values if target.dtype == np.float32 else rows.raw
        if (void := rows.missing | rows.bad).any():
            stored = np.where(void[:, None], stored.dtype.type(0), stored)
        stored = np.ascontiguousarray(stored, dtype=target.dtype)
        first = int(where[0])
        if first == self._next and bool((np.diff(where) == 1).all()):
            self._next = first + len(where)
            self._hashing = self._hasher.submit(self._sha256.update, stored.reshape(-1).view(np.uint8).data)
            target.write_rows(first, stored)
        else:
            self._next = None
            target.put(where, stored)

    def digest(self) -> str | None:
        """Return the SHA-256 (hex) of the npy file, None where rows came in another order or some did not come."""
        return self._sha256.hexdigest() if self._next == self._instances else None


class _Means:
    """Means of the rows that lead to one instance, taken in the row store as they come."""

    def __init__(self, target: RowStore, instances: int) -> None:
        self._target = target
        self.counts = np.zeros(instances, dtype=np.int64)
        """Rows that each instance is the mean of."""

    def add(self, rows: _Rows) -> None:
        """Take rows into the means, those missing or bad left out."""
        valid = ~(rows.missing | rows.bad)
        at, places, added = np.unique(rows.where[valid], return_inverse=True, return_counts=True)
        if not len(at):
            return
        sums = np.zeros((len(at), rows.values.shape[1]))
        np.add.at(sums, places, rows.values[valid])
        before = self.counts[at][:, None]
        old = np.concatenate([self._target.read_rows(int(at[a]), int(at[b - 1]) + 1) for a, b in runs(at)])
        self._target.put(at, (before * old + sums) / (before + added[:, None]))
        self.counts[at] += added
