"""How the instances and files of an export are divided among several writers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pmrl_cli.data.shards import shard_rows
from pmrl_cli.files.formats.vector_tables import Parts

__all__ = ["FUSED", "ROWS_PER_FILE", "WriterPart", "part_of_rank", "part_of_shard"]

FUSED = "fused"
"""The table of fused vectors, beside those of the modalities."""

ROWS_PER_FILE = 262_144
"""Rows of one Parquet file: 512 MiB of 512 float32."""


@dataclass(frozen=True)
class WriterPart:
    """What one writer of several writes of an export.

    Args:
        index: which writer this is, in [0, of).
        of: how many there are.
        parts: of each table (the modalities and ``FUSED``), the Parquet files it writes.
    """

    index: int
    of: int
    parts: Mapping[str, Parts]

    @property
    def suffix(self) -> str:
        """End of the names of this writer's files, by which they differ from those of the others."""
        return f"-{self.index:05d}-of-{self.of:05d}"


def part_of_shard(
    names: Sequence[str], present: npt.NDArray[np.bool_], index: int, of: int, rows_per_file: int = ROWS_PER_FILE
) -> WriterPart:
    """Return the part files written by shard ``index``, whose blocks hold its instances only.

    The part files of all shards together are numbered through, in the order of the shards.

    Args:
        names: the k modalities.
        present: (n, k) bool, of all instances.
        index: which shard, in [0, of).
        of: how many shards.
        rows_per_file: rows of one Parquet file.
    """
    edges = [shard_rows(len(present), one, of).start for one in range(of)] + [len(present)]
    parts = {}
    for name, has in zip([*names, FUSED], [*present.T, present.any(axis=1)], strict=True):
        rows = np.diff(np.concatenate([[0], np.cumsum(has)])[edges])
        files = np.maximum(1, -(-rows // rows_per_file))
        first, mine = int(files[:index].sum()), int(rows[index])
        parts[name] = Parts(first, first + int(files[index]), int(files.sum()), 0, mine, mine)
    return WriterPart(index, of, parts)


def part_of_rank(
    names: Sequence[str], present: npt.NDArray[np.bool_], index: int, of: int, rows_per_file: int = ROWS_PER_FILE
) -> tuple[slice, WriterPart]:
    """Return what one of several writers of one export writes, and the instances that its blocks must hold for that.

    Each writes about equally many of the part files of every table, as one writer alone would number and cut them.

    Args:
        names: the k modalities.
        present: (n, k) bool, of all instances.
        index: which writer, in [0, of).
        of: how many there are.
        rows_per_file: rows of one Parquet file.
    """
    tables = dict(zip([*names, FUSED], [*present.T, present.any(axis=1)], strict=True))
    places = {name: np.flatnonzero(has) for name, has in tables.items()}
    files = {name: shard_rows(max(1, -(-len(at) // rows_per_file)), index, of) for name, at in places.items()}
    cut = {
        name: at[files[name].start * rows_per_file : files[name].stop * rows_per_file] for name, at in places.items()
    }
    start = min((int(at[0]) for at in cut.values() if len(at)), default=0)
    stop = max((int(at[-1]) + 1 for at in cut.values() if len(at)), default=0)
    parts = {}
    for name, at in places.items():
        before, after = np.searchsorted(at, [start, stop])
        first = files[name].start * rows_per_file
        parts[name] = Parts(
            files[name].start,
            files[name].stop,
            max(1, -(-len(at) // rows_per_file)),
            max(0, first - int(before)) if len(cut[name]) else 0,
            len(cut[name]),
            int(after - before),
        )
    return slice(start, stop), WriterPart(index, of, parts)
