"""MATLAB: older files by SciPy; 7.3 is HDF5, in which every matrix stands transposed, (d, n) for n rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pmrl_cli.errors import printable
from pmrl_cli.files.formats import mat_old
from pmrl_cli.files.formats.contents import (
    MAX_DIM,
    Block,
    Column,
    Contents,
    ProbeOptions,
    Refused,
    Vectors,
    reading,
    rows_per_block,
)
from pmrl_cli.files.formats.hdf5 import datasets_of, storage_of

__all__ = ["probe"]


def probe(path: Path, options: ProbeOptions) -> Contents:
    """Return the matrices of a MATLAB file as MATLAB shows them: (n, d).

    Raises: DataError if it cannot be read.
    """
    with path.open("rb") as start:
        head = start.read(128)
    if not head.startswith(b"MATLAB 7.3") and b"\x89HDF" not in head and not h5py.is_hdf5(path):
        return mat_old.read(path, options)
    vectors: list[Vectors] = []
    columns: list[Column] = []
    others: list[str] = []
    with reading(str(path)), h5py.File(path) as file:
        datasets, refused = datasets_of(file)
        for name, dataset in datasets:
            if name.startswith("#refs#"):  # what cells hold
                continue
            if (column := _column(path, name, dataset)) is not None:
                stored = storage_of(path, name, dataset)
                if isinstance(stored, Refused):
                    refused.append(stored)
                else:
                    columns.append(column)
                continue
            if dataset.ndim != 2 or dataset.dtype.kind not in "fiu" or not 0 < dataset.shape[0] <= MAX_DIM:
                others.append(f"{name} ({dataset.dtype} of shape {dataset.shape[::-1]})")
                continue
            stored = storage_of(path, name, dataset)
            if isinstance(stored, Refused):
                refused.append(stored)
            else:
                vectors.append(_vectors(path, name, dataset))
    shown = ", ".join(f"{one.name} ({one.rows} x {one.dim})" for one in vectors[:6])
    note = printable(f"{path.name}: MATLAB stores matrices transposed; read as MATLAB shows them: {shown}.")
    return Contents(str(path), tuple(vectors), tuple(columns), tuple(others), (note,), refused=tuple(refused))


def _column(path: Path, name: str, dataset: h5py.Dataset) -> Column | None:
    """Return what holds one value a row: an (n, 1) or (1, n) matrix, rows of characters, a cell array of text."""
    if dataset.ndim != 2:
        return None
    kind = dataset.attrs.get("MATLAB_class", b"")
    text, cells = kind == b"char", dataset.dtype == h5py.ref_dtype
    sizes = [int(size) for size in dataset.shape]
    if not (text and dataset.dtype.kind == "u") and not (1 in sizes and (cells or dataset.dtype.kind in "fiu")):
        return None
    rows = sizes[1] if text else max(sizes)

    def load(*, text: bool = False) -> pa.Array:
        with reading(str(path), name), h5py.File(path) as file:
            values = file[name][()]
            if cells:
                return pa.array([_characters(file[one][()]) for one in values.reshape(-1)], pa.large_string())
        if kind == b"char":
            return pa.array([_characters(row) for row in values.T], pa.large_string())
        flat = values.reshape(-1)
        whole = flat.dtype.kind == "f" and bool((flat == np.floor(flat)).all() and (np.abs(flat) < 2**53).all())
        return pa.array(flat.astype(np.int64) if whole else flat.astype(flat.dtype.newbyteorder("=")))

    integers = dataset.dtype.kind in "iu" or (dataset.dtype.kind == "f" and bool((dataset[()] % 1 == 0).all()))
    return Column(name, rows, text or cells or integers, load)


def _characters(codes: npt.NDArray[Any]) -> str | None:
    """Return the text of MATLAB's characters, UTF-16 units that stand in a column; None if they are none."""
    if codes.dtype.kind != "u" or codes.dtype.itemsize > 2:
        return None
    return codes.astype("<u2").T.tobytes().decode("utf-16-le", "replace").rstrip(" \0")


def _vectors(path: Path, name: str, dataset: h5py.Dataset) -> Vectors:
    dim, rows = (int(size) for size in dataset.shape)
    native = dataset.dtype.newbyteorder("=")
    step = max(1, min(rows, 8 * rows_per_block(dim, native.itemsize)))  # each block reads a piece of every column

    def blocks() -> Iterator[Block]:
        with reading(str(path), name), h5py.File(path) as file:
            source = file[name]
            for start in range(0, rows, step):
                yield np.ascontiguousarray(source[:, start : start + step].T, dtype=native), None

    return Vectors(str(path), name, rows, dim, native.name, blocks)
