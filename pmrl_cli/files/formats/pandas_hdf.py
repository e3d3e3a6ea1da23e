"""Frames that pandas wrote to HDF5: ``axis1`` and ``block0_values`` of the fixed format, records of the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa

from pmrl_cli.files.formats.contents import Block, Column, Vectors, reading, rows_per_block

__all__ = ["frames"]

_MOST_FRAMES = 64


def frames(
    path: Path, file: h5py.File, names: Sequence[str], vectors: Sequence[Vectors], columns: Sequence[Column]
) -> tuple[tuple[Vectors, ...], tuple[Column, ...], tuple[str, ...]]:
    """Return the arrays and columns of a file, those of a frame known as such.

    The values of the one block of numbers are the vectors, ``axis1`` is their ids; what else pandas keeps of the
    frame is left out.

    Args:
        path: of the file.
        file: open.
        names: of all its datasets.
        vectors: its arrays.
        columns: its columns.

    Returns: the arrays, the columns, and phrases on frames that are not read.
    """
    kept, ids = list(vectors), list(columns)
    others: list[str] = []
    tops = sorted({name.partition("/")[0] for name in names if "/" in name})
    for name in tops[:_MOST_FRAMES]:
        hard = isinstance(file.get(name, getlink=True), h5py.HardLink)  # no other link is followed
        group = file[name] if hard else None
        if not isinstance(group, h5py.Group) or "pandas_type" not in group.attrs:
            continue
        kind = group.attrs["pandas_type"]
        kind = kind.decode() if isinstance(kind, bytes) else str(kind)
        inside = f"/{name}/"
        mine = [one for one in kept if (one.name or "").startswith(inside)]
        kept = [one for one in kept if one not in mine]
        axis = next((one for one in ids if one.name == f"{inside}axis1" and one.nameable), None)
        ids = [one for one in ids if not one.name.startswith(inside) or one is axis]
        if kind == "frame_table":
            record = _records(path, name, group)
            if record is None:
                others.append(f"{name} (a frame in pandas' table format with columns of several types)")
            else:
                kept.append(record[0])
                ids.append(record[1])
            continue
        blocks = [one for one in mine if (one.name or "").rpartition("/")[2].startswith("block")]
        floats = [one for one in blocks if one.dtype.startswith("float")]
        kept += [replace(one, name=f"/{name}", ids=None if axis is None else axis.name) for one in floats[:1]]
        others += [f"{one.name} ({one.rows} x {one.dim} {one.dtype})" for one in blocks if one not in floats[:1]]
    return tuple(kept), tuple(ids), tuple(others)


def _records(path: Path, name: str, group: h5py.Group) -> tuple[Vectors, Column] | None:
    """Return the vectors and the ids of a frame whose rows are records, None if it is not one block of floats."""
    hard = isinstance(group.get("table", getlink=True), h5py.HardLink)
    table = group["table"] if hard else None
    fields = table.dtype.names if isinstance(table, h5py.Dataset) and table.dtype.names else ()
    blocks = [one for one in fields if one.startswith("values_block_")]
    if table is None or "index" not in fields or len(blocks) != 1 or table.dtype[blocks[0]].base.kind != "f":
        return None
    kind = table.dtype[blocks[0]]
    rows, dim = int(table.shape[0]), int(kind.shape[0]) if kind.shape else 1
    place, step = f"/{name}/table", rows_per_block(1, table.dtype.itemsize)

    def blocks_of() -> Iterator[Block]:
        with reading(str(path), place), h5py.File(path) as file:
            source = file[place].fields(blocks[0])
            for start in range(0, rows, step):
                block = np.asarray(source[start : start + step]).reshape(-1, dim)
                yield np.ascontiguousarray(block, dtype=kind.base.newbyteorder("=")), None

    def load(*, text: bool = False) -> pa.Array:
        with reading(str(path), place), h5py.File(path) as file:
            values = np.asarray(file[place].fields("index")[:])
        return pa.array(values.tolist(), pa.large_binary()) if values.dtype.kind == "S" else pa.array(values)

    shown = f"/{name}/index"
    vectors = Vectors(str(path), f"/{name}", rows, dim, kind.base.newbyteorder("=").name, blocks_of, shown)
    return vectors, Column(shown, rows, table.dtype["index"].kind in "SUiu", load)
