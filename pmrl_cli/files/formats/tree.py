"""Arrays by name in groups within groups: what HDF5 and zarr hold, whichever library reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import cycle
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pmrl_cli.errors import Place
from pmrl_cli.files.formats.contents import (
    MAX_DIM,
    Block,
    Column,
    ProbeOptions,
    Refused,
    Vectors,
    reading,
    refuse_bomb,
    rows_per_block,
)
from pmrl_cli.files.formats.layout import Array, Fetch, Keyed, dims_of, keyed, rows_and_dim, shaped

__all__ = [
    "MAX_CHUNK_BYTES",
    "Arrays",
    "Node",
    "Rows",
    "Tree",
    "arrays_of",
    "arrow_of",
    "column_of",
    "declared_bytes",
    "vectors_of",
]

MAX_CHUNK_BYTES = 2**30
"""A chunk is unpacked whole; larger ones are not read."""

_CHUNK_BAND_BYTES = 64 * 2**20
_COLUMN_ROWS = 2**18
"""Strings read at a time; fewer if each is long."""

Rows = Callable[[str, slice, npt.NDArray[Any] | None], npt.NDArray[Any]]
"""Returns some rows of an array by its name, in the array given if there is one."""


@dataclass(frozen=True)
class Node:
    """One array of a tree, as it is declared.

    Args:
        name: with ``/`` between groups.
        shape: None if it has no values.
        dtype: of its elements; of objects where they are text of any length.
        text: whether its elements are text.
        chunk: rows that are stored together, None if they are stored as one.
        key: the id it carries as an attribute.
        slow: whether its compression is slow to read.
    """

    name: str
    shape: tuple[int, ...] | None
    dtype: np.dtype[Any]
    text: bool
    chunk: int | None = None
    key: str | None = None
    slow: bool = False

    @property
    def native(self) -> np.dtype[Any]:
        """Its type in this machine's byte order."""
        native: np.dtype[Any] = self.dtype.newbyteorder("=")
        return native

    def __str__(self) -> str:
        return f"{self.name} ({self.dtype} " + (
            "without values)" if self.shape is None else f"of shape {self.shape})"
        )


class Tree(Protocol):
    """An open file or store."""

    path: Path

    def node(self, name: str) -> Node | None:
        """Return an array, None if there is none of that name in the tree itself."""
        ...

    def group(self, name: str) -> list[str] | None:
        """Return the names in a group, None if it is none."""
        ...

    def attribute(self, name: str, key: str) -> Any:  # noqa: ANN401 - a number, a text or an array
        """Return an attribute of an array or a group, None if it has none such."""
        ...

    def stored(self, node: Node) -> tuple[int, int] | Refused:
        """Return the bytes an array declares and stores, or why it is not read.

        Raises: PolicyError if it declares far more than it stores.
        """
        ...

    def reader(self) -> AbstractContextManager[Rows]:
        """Open the tree again, to read from it."""
        ...


class Arrays(NamedTuple):
    """What the arrays of a tree are."""

    vectors: list[Vectors]
    columns: list[Column]
    unpooled: list[str]
    others: list[str]
    refused: list[Refused]
    slow: list[str]
    keyed: Keyed


def arrays_of(tree: Tree, nodes: Sequence[Node], options: ProbeOptions) -> Arrays:
    """Return the vectors and columns that arrays are.

    Raises: PolicyError for a declared size out of proportion to what is stored.
    """
    flat: list[Node] = []
    columns: list[Column] = []
    others: list[str] = []
    refused: list[Refused] = []
    sizes: list[tuple[int, int]] = []
    for node in nodes:
        shape, kind = node.shape, node.dtype.kind
        single = shape is not None and len(shape) > 1 and dims_of(shape) == 1
        number = shape is not None and kind in "fiu" and 1 <= len(shape) <= 4 and dims_of(shape) <= MAX_DIM
        if shape is None or not (number or ((len(shape) == 1 or single) and (node.text or kind == "b"))):
            others.append(str(node))
            continue
        stored = tree.stored(node)
        if isinstance(stored, Refused):
            refused.append(stored)
            continue
        sizes.append(stored)
        if len(shape) == 1 or (single and kind != "f"):
            columns.append(column_of(tree, node))
        if kind == "f" or (kind in "iu" and len(shape) > 1 and not single):
            flat.append(node)
    refuse_bomb(Place(str(tree.path)), sum(size for size, _ in sizes), sum(stored for _, stored in sizes))
    arrays = [Array(node.name, node.shape or (), node.native.name, node.key) for node in flat]
    each = keyed(str(tree.path), arrays, columns, lambda: _whole(tree), options.pool)
    vectors, unpooled = list(each.vectors), list(each.unpooled)
    slow = []
    for node in flat:
        if node.name in each.names or len(node.shape or ()) < 2:
            continue
        found = vectors_of(tree, node, options.pool)
        if isinstance(found, Vectors):
            vectors.append(found)
            slow += [found.name or ""] if node.slow else []
        else:
            (unpooled if rows_and_dim(node.shape or ()) else others).append(found)
    return Arrays(vectors, columns, unpooled, others, refused, slow, each)


@contextmanager
def _whole(tree: Tree) -> Iterator[Fetch]:
    with tree.reader() as rows_of:
        yield lambda name: rows_of(name, slice(None), None)


def vectors_of(tree: Tree, node: Node, pool: str | None) -> Vectors | str:
    """Return an array of two axes or more as vectors, or a phrase on why it is none."""
    shape = node.shape or ()
    sizes = rows_and_dim(shape)
    if sizes is None:
        return str(node)
    rows, length, dim = sizes
    native = node.native
    step = rows_per_block(length * dim, native.itemsize)
    if node.chunk is not None and node.chunk * length * dim * native.itemsize <= _CHUNK_BAND_BYTES:
        # whole chunks, or each would be read and unpacked twice
        step = -(-step // node.chunk) * node.chunk
    step = max(1, min(step, rows))

    def blocks() -> Iterator[Block]:
        with reading(str(tree.path), f"/{node.name}"), tree.reader() as rows_of:
            buffers = cycle([np.empty((step, *shape[1:]), dtype=native) for _ in range(2)])
            for start in range(0, rows, step):
                count, buffer = min(step, rows - start), next(buffers)
                yield rows_of(node.name, slice(start, start + count), buffer[:count]).reshape(count, -1), None

    flat = Vectors(str(tree.path), f"/{node.name}", rows, dim, native.name, blocks)
    return shaped(flat, shape, pool)


def column_of(tree: Tree, node: Node) -> Column:
    """Return an array of one value a row as a column."""
    rows = int((node.shape or (0,))[0])
    step = min(_COLUMN_ROWS, rows_per_block(1, node.dtype.itemsize))

    def load(*, text: bool = False) -> pa.Array:
        with reading(str(tree.path), f"/{node.name}"), tree.reader() as rows_of:
            starts = range(0, rows, step)
            parts = [
                arrow_of(rows_of(node.name, slice(start, min(rows, start + step)), None).reshape(-1))
                for start in starts
            ]
            return pa.concat_arrays(parts) if parts else pa.array([], pa.large_string())

    return Column(f"/{node.name}", rows, node.text or node.dtype.kind in "iu", load)


def arrow_of(values: npt.NDArray[Any]) -> pa.Array:
    """Return numbers, or text as its bytes."""
    if values.dtype.kind in "OS":
        return pa.array(values.tolist(), pa.large_binary())
    if values.dtype.kind in "UT":
        return pa.array(values.tolist(), pa.large_string())
    return pa.array(values.astype(values.dtype.newbyteorder("=")))


def declared_bytes(shape: Sequence[int], dtype: np.dtype[Any]) -> int:
    """Return the bytes of an array, in Python's numbers: those of NumPy wrap."""
    return prod(int(size) for size in shape) * int(dtype.itemsize)
