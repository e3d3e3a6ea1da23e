"""MATLAB's formats before 7.3, read by SciPy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pmrl_cli.errors import Place
from pmrl_cli.files.formats.contents import (
    MAX_DIM,
    Block,
    Column,
    Contents,
    ProbeOptions,
    Vectors,
    reading,
    refuse_bomb,
    rows_per_block,
)

__all__ = ["read"]

_KINDS = {"single": "float32", "double": "float64"}
_KINDS |= {f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}


def read(path: Path, options: ProbeOptions) -> Contents:
    """Return the matrices of a MATLAB file of version 4 to 7.

    Raises: DataError if it cannot be read; PolicyError if it declares far more than it stores.
    """
    from scipy.io import whosmat

    vectors: list[Vectors] = []
    columns: list[Column] = []
    others: list[str] = []
    with reading(str(path)):
        declared = whosmat(path)
        size = path.stat().st_size
    for name, shape, kind in declared:
        rows, dim = (*map(int, shape), 0)[:2]
        flat = len(shape) == 2 and 1 in shape
        if kind in _KINDS and len(shape) == 2:
            refuse_bomb(Place(str(path), name), rows * dim * np.dtype(_KINDS[kind]).itemsize, size)
        if kind == "char" and len(shape) == 1:  # SciPy takes the characters of a row together
            columns.append(_column(path, name, rows, kind))
        elif flat and (kind == "cell" or kind in _KINDS):
            columns.append(_column(path, name, max(rows, dim), kind))
        elif kind in _KINDS and len(shape) == 2 and 0 < dim <= MAX_DIM:
            vectors.append(_vectors(path, name, rows, dim, _KINDS[kind]))
        else:
            others.append(f"{name} ({kind} of shape {tuple(shape)})")
    return Contents(str(path), tuple(vectors), tuple(columns), tuple(others))


def _loaded(path: Path, name: str) -> npt.NDArray[Any]:
    from scipy.io import loadmat

    values = loadmat(path, variable_names=[name])[name]
    if not isinstance(values, np.ndarray):
        message = f"{name} is sparse"
        raise TypeError(message)
    return values


def _vectors(path: Path, name: str, rows: int, dim: int, dtype: str) -> Vectors:
    step = rows_per_block(dim, np.dtype(dtype).itemsize)

    def blocks() -> Iterator[Block]:
        with reading(str(path), name):
            # SciPy gives the type that the numbers are stored in, which may be smaller than that of the matrix.
            values = _loaded(path, name)
            for start in range(0, rows, step):
                yield np.ascontiguousarray(values[start : start + step], dtype=dtype), None

    return Vectors(str(path), name, rows, dim, dtype, blocks)


def _column(path: Path, name: str, rows: int, kind: str) -> Column:
    """Return what holds one value a row: a vector of numbers, rows of characters, a cell array of text."""

    def load(*, text: bool = False) -> pa.Array:
        with reading(str(path), name):
            values = _loaded(path, name)
        if kind == "char":
            return pa.array([str(one).rstrip(" \0") for one in values.reshape(-1)], pa.large_string())
        flat = values.reshape(-1)
        if kind == "cell":
            return pa.array([str(one[0]) if _is_text(one) else None for one in flat], pa.large_string())
        native = flat.astype(flat.dtype.newbyteorder("="))
        whole = native.dtype.kind == "f" and bool(((native % 1 == 0) & (np.abs(native) < 2**53)).all())
        return pa.array(native.astype(np.int64) if whole else native)

    integers = kind in ("char", "cell") or "int" in kind
    if not integers:
        with reading(str(path), name):
            integers = bool((_loaded(path, name) % 1 == 0).all())
    return Column(name, rows, integers, load)


def _is_text(cell: object) -> bool:
    return isinstance(cell, np.ndarray) and cell.dtype.kind == "U" and cell.size == 1
