"""MATLAB 7.3: HDF5 in which every matrix stands transposed, (d, n) for n rows of d columns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from pmrl_cli.errors import DataError, Place, printable
from pmrl_cli.files.formats.contents import (
    MAX_DIM,
    Block,
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
    """Return the matrices of a MATLAB 7.3 file as MATLAB shows them: (n, d).

    Raises: DataError if it cannot be read, as the older formats of MATLAB cannot.
    """
    with path.open("rb") as start:
        head = start.read(128)
    if not head.startswith(b"MATLAB 7.3") and b"\x89HDF" not in head and not h5py.is_hdf5(path):
        raise DataError(
            what="file cannot be read",
            at=Place(str(path)),
            found="a MATLAB file of an older format",
            expected="one saved with -v7.3",
            next_step="In MATLAB: save('file.mat', '-v7.3'); or save the matrices as npy.",
        )
    vectors: list[Vectors] = []
    others: list[str] = []
    with reading(str(path)), h5py.File(path) as file:
        datasets, refused = datasets_of(file)
        for name, dataset in datasets:
            if dataset.ndim != 2 or dataset.dtype.kind not in "fiu" or not 0 < dataset.shape[0] <= MAX_DIM:
                others.append(f"{name} ({dataset.dtype} of shape {dataset.shape[::-1]})")
                continue
            stored = storage_of(path, name, dataset)
            if isinstance(stored, Refused):
                refused.append(stored)
            elif not name.startswith("#refs#"):
                vectors.append(_vectors(path, name, dataset))
    shown = ", ".join(f"{one.name} ({one.rows} x {one.dim})" for one in vectors[:6])
    note = printable(f"{path.name}: MATLAB stores matrices transposed; read as MATLAB shows them: {shown}.")
    return Contents(str(path), tuple(vectors), (), tuple(others), (note,), refused=tuple(refused))


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
