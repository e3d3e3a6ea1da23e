"""safetensors: arrays by name; or, where they are one for each instance, by id."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import safe_open

from pmrl_cli.files.formats.arrays import fill, stream
from pmrl_cli.files.formats.contents import (
    BFLOAT16,
    MAX_DIM,
    Block,
    Contents,
    ProbeOptions,
    Vectors,
    reading,
    to_float32,
)
from pmrl_cli.files.formats.layout import Array, Fetch, dims_of, keyed, rows_and_dim, shaped

__all__ = ["probe"]

_TYPES = {"F16": "float16", "F32": "float32", "F64": "float64", "BF16": BFLOAT16}
_TYPES |= {
    f"{sign}{bits}": f"{name}{bits}" for sign, name in (("I", "int"), ("U", "uint")) for bits in (8, 16, 32, 64)
}


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        message = "a name twice in its header"
        raise ValueError(message)
    return found


def probe(path: Path, options: ProbeOptions) -> Contents:
    """Return the arrays of a safetensors file; the library checks its header, the rows are read as bytes.

    Raises: DataError if it cannot be read.
    """
    others: list[str] = []
    arrays: list[Array] = []
    starts: dict[str, int] = {}
    with reading(str(path)):
        with safe_open(path, framework="np") as checked:
            names = sorted(checked.keys())
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length), object_pairs_hook=_each_once)
        for name in names:
            entry = header[name]
            shape, kind = tuple(int(size) for size in entry["shape"]), _TYPES.get(entry["dtype"])
            if kind is None or not 1 <= len(shape) <= 4 or not 0 < dims_of(shape) <= MAX_DIM:
                others.append(f"{name} ({entry['dtype']} of shape {shape})")
                continue
            starts[name] = 8 + length + entry["data_offsets"][0]
            arrays.append(Array(name, shape, kind))
    each = keyed(str(path), arrays, (), lambda: _fetching(path, arrays, starts), options.pool)
    vectors, unpooled = list(each.vectors), list(each.unpooled)
    for array in arrays:
        if array.name in each.names:
            continue
        sizes = rows_and_dim(array.shape)
        if sizes is None:
            others.append(f"{array.name} ({array.dtype} of shape {array.shape})")
            continue
        blocks = _blocks(path, array, starts[array.name])
        found = shaped(
            Vectors(str(path), array.name, sizes[0], sizes[2], array.dtype, blocks), array.shape, options.pool
        )
        if isinstance(found, Vectors):
            vectors.append(found)
        else:
            unpooled.append(found)
    return Contents(
        str(path),
        tuple(vectors),
        each.columns,
        tuple(others),
        side=("split",) if each.split else (),
        unpooled=tuple(unpooled),
    )


def _stored(array: Array) -> np.dtype[Any]:
    return np.dtype("uint16" if array.dtype == BFLOAT16 else array.dtype).newbyteorder("<")


def _blocks(path: Path, array: Array, start: int) -> Callable[[], Iterator[Block]]:
    def blocks() -> Iterator[Block]:
        with reading(str(path), array.name), path.open("rb") as file:
            file.seek(start)
            yield from stream(file, array.shape[0], prod(array.shape[1:]), _stored(array))

    return blocks


@contextmanager
def _fetching(path: Path, arrays: list[Array], starts: dict[str, int]) -> Iterator[Fetch]:
    known = {array.name: array for array in arrays}
    with path.open("rb") as file:

        def fetch(name: str) -> npt.NDArray[np.generic]:
            array = known[name]
            values = np.empty(array.shape, dtype=_stored(array))
            file.seek(starts[name])
            fill(file, values)
            return to_float32(values, array.dtype) if array.dtype == BFLOAT16 else values

        yield fetch
