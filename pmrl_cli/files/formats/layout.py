"""How the named arrays of one file mean instances and modalities, whatever the format.

An array holds one row per instance, ``(n, d)``, with axes of length 1 left in perhaps; or several vectors of each
instance, ``(n, t, d)``, which are pooled if asked for. Or the names are the ids: one array, or one group of arrays,
for each instance, of shape ``(d,)``, ``(1, d)`` or ``(t, d)``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from math import prod
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pmrl_cli.errors import DataError, Place
from pmrl_cli.files.formats.contents import (
    BFLOAT16,
    FLOATS,
    MAX_DIM,
    Block,
    Column,
    Vectors,
    reading,
    rows_per_block,
    text_column,
    to_float32,
)
from pmrl_cli.files.formats.names import ID_NAMES, SPLIT_NAMES, base_name, natural_key, never_features, plain_name

__all__ = [
    "FRAMES",
    "MANY",
    "Array",
    "Keyed",
    "dims_of",
    "keyed",
    "pooled",
    "rows_and_dim",
    "shaped",
    "split_word",
    "splits",
]

FEW = 3
"""Fewer arrays than this are never one for each instance."""

MANY = 12
"""More arrays of equal width than this are instances, not modalities."""

FRAMES = 1024
"""More rows of one file than this are instances, not what one instance has of frames, patches or tokens."""

Fetch = Callable[[str], npt.NDArray[np.generic]]
Opened = Callable[[], AbstractContextManager[Fetch]]
"""Opens a file; what it gives returns a whole array by its name."""


@dataclass(frozen=True)
class Array:
    """One array of numbers in a file.

    Args:
        name: with ``/`` between groups.
        shape: of any number of axes.
        dtype: of its elements.
        key: the id it carries beside its name, None for its name.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    key: str | None = None


@dataclass(frozen=True)
class Keyed:
    """What was recognised as one array for each instance.

    Args:
        vectors: one for each modality.
        columns: their ids.
        unpooled: phrases on those that need ``pool``.
        names: the arrays that are accounted for.
    """

    vectors: tuple[Vectors, ...] = ()
    columns: tuple[Column, ...] = ()
    unpooled: tuple[str, ...] = ()
    names: frozenset[str] = frozenset()

    @property
    def split(self) -> bool:
        """Whether the names say of each row which part of the data set it belongs to."""
        return any(one.name == "split" for one in self.columns)


def rows_and_dim(shape: Sequence[int]) -> tuple[int, int, int] | None:
    """Return (n, t, d) of an array with one row, or t vectors, for each instance; None if it is none of these."""
    if len(shape) < 2 or not all(shape[1:]):
        return None
    inner = [size for size in shape[1:] if size != 1] or [1]
    if len(inner) > 2:
        return None
    return int(shape[0]), int(inner[0]) if len(inner) == 2 else 1, int(inner[-1])


def shaped(flat: Vectors, shape: Sequence[int], pool: str | None) -> Vectors | str:
    """Return an array as one vector for each instance, or a phrase if it must be pooled first.

    Args:
        flat: its blocks, each row with all axes but the first in one: (B, t * d).
        shape: its own.
        pool: as in ``ProbeOptions``.
    """
    sizes = rows_and_dim(shape)
    if sizes is None:
        message = f"no vectors in an array of shape {tuple(shape)}"
        raise ValueError(message)
    rows, length, dim = sizes
    if length == 1:
        return flat
    if pool is None:
        return f"{flat.name or 'the array'} ({rows} x {length} x {dim} {flat.dtype})"

    def blocks() -> Iterator[Block]:
        for block, null in flat.blocks():
            values = to_float32(block, flat.dtype) if flat.dtype == BFLOAT16 else block
            yield pooled(values.reshape(len(block), length, dim), pool), null

    return replace(flat, dim=dim, dtype="float32" if flat.dtype == BFLOAT16 else flat.dtype, blocks=blocks)


def pooled(sequences: npt.NDArray[np.generic], pool: str) -> npt.NDArray[np.generic]:
    """Return (B, d) of (B, t, d): the mean (in float32, or float64 if they are), the maximum or the first of t."""
    if pool == "first":
        first: npt.NDArray[np.generic] = sequences[:, 0]
        return first
    if pool == "max":
        highest: npt.NDArray[np.generic] = sequences.max(axis=1)
        return highest
    exact: type[np.floating] = np.float64 if sequences.dtype == np.float64 else np.float32
    mean: npt.NDArray[np.generic] = sequences.mean(axis=1, dtype=exact).astype(sequences.dtype)
    return mean


def _unit(shape: Sequence[int]) -> tuple[int, int] | None:
    """Return (t, d) of the array of one instance: ``(d,)``, ``(1, d)`` or ``(t, d)``."""
    if len(shape) == 1:
        return (1, int(shape[0])) if shape[0] > 1 else None
    sizes = [int(size) for size in shape]
    while len(sizes) > 2 and 1 in sizes[:-1]:
        sizes.remove(1)
    return (sizes[0], sizes[1]) if len(sizes) == 2 and sizes[1] > 0 and sizes[0] > 0 else None


def keyed(file: str, arrays: Sequence[Array], columns: Sequence[Column], opened: Opened, pool: str | None) -> Keyed:
    """Return what a file holds if its arrays are one for each instance; empty if they are not.

    They are if there are three or more, of one width for each modality, and of one row each, or (several rows each)
    of unequal length or more than a dozen. An id column as long as an array has rows says that they are not.

    Args:
        file: as the user typed it.
        arrays: all arrays of floats.
        columns: the columns of the file.
        opened: opens the file for reading.
        pool: as in ``ProbeOptions``.
    """
    usable = [one for one in arrays if one.dtype in FLOATS and not never_features(one.name)]
    if len(usable) < FEW or len({one.name.count("/") for one in usable}) > 1:
        return Keyed()
    ids = {one.rows for one in columns if one.nameable and base_name(one.name) in ID_NAMES}
    if any(one.shape[0] in ids for one in usable if _rows_of(one) > 1):
        return Keyed()
    roles = _roles([one.name for one in usable])
    groups: dict[str, list[Array]] = {}
    for one in usable:
        groups.setdefault(roles[one.name].modality, []).append(one)
    once = all(len({roles[one.name].instance for one in group}) == len(group) for group in groups.values())
    if not once or not all(_one_each(group) for group in groups.values()):
        return Keyed()
    found = Keyed()
    for leaf, group in sorted(groups.items()):
        found = _add(found, file, leaf, sorted(group, key=lambda one: natural_key(one.name)), opened, pool, roles)
    if len(groups) == 1 and found.vectors and roles[usable[0].name].split:
        ordered = sorted(usable, key=lambda one: natural_key(one.name))
        column = text_column("split", [roles[one.name].split for one in ordered])
        found = replace(found, columns=(*found.columns, column))
    if len(groups) > 1:  # of one alone the name of the file says more
        named = tuple(replace(one, modality=plain_name(base_name(one.name or ""))) for one in found.vectors)
        found = replace(found, vectors=named)
    return replace(found, names=frozenset(one.name for one in usable))


def _rows_of(one: Array) -> int:
    unit = _unit(one.shape)
    return 1 if unit is None else unit[0] if len(one.shape) > 1 else int(one.shape[0])


class _Role(NamedTuple):
    """What the parts of a name are."""

    instance: str
    modality: str = ""
    split: str = ""


def _roles(names: Sequence[str]) -> dict[str, _Role]:
    """Return what the parts of each name are; all names have as many.

    The first is the split if all are words for one. Of the others the last is the modality where few of those differ
    (``id/image``), or the first where few do and the same instances stand under each (``image/id``); else all are
    the instance.
    """
    if "/" not in names[0]:
        return _dotted(names) or {name: _Role(name) for name in names}
    tops = [name.partition("/")[0] for name in names]
    if all(top.lower() in SPLIT_NAMES for top in tops):
        rests = {name: name.partition("/")[2] for name in names}
        inner = _roles(list(dict.fromkeys(rests.values())))
        return {name: inner[rest]._replace(split=split_word(name.partition("/")[0])) for name, rest in rests.items()}
    heads, leaves = ({name.rpartition("/")[at] for name in names} for at in (0, 2))
    if len(heads) > len(leaves):
        return {name: _Role(*name.rpartition("/")[::2]) for name in names}
    under: dict[str, set[str]] = {}
    for name in names:
        under.setdefault(name.partition("/")[0], set()).add(name.partition("/")[2])
    shared = set.intersection(*under.values())
    if 1 < len(under) <= MANY and 2 * len(shared) > min(map(len, under.values())):
        return {name: _Role(*name.partition("/")[::-2]) for name in names}
    return {name: _Role(name) for name in names}


def _dotted(names: Sequence[str]) -> dict[str, _Role] | None:
    """Return the parts of names such as ``0001.image``, or ``image.0001``, as ``_roles`` does; None of others."""
    for parted in (str.rpartition, str.partition):
        parts = {name: parted(name, ".") for name in names}
        first, last = (0, 2) if parted is str.rpartition else (2, 0)
        words = {part[last] for part in parts.values()}
        if not all(part[1] and part[first] for part in parts.values()) or not 1 < len(words) <= MANY:
            continue
        under = [{part[first] for part in parts.values() if part[last] == word} for word in words]
        shared = set.intersection(*under)  # endings of files, such as jpg and png, are of other instances each
        if all(re.fullmatch(r"[A-Za-z]\w*", word) for word in words) and 2 * len(shared) > min(map(len, under)):
            return {name: _Role(part[first], part[last]) for name, part in parts.items()}
    return None


def _one_each(group: Sequence[Array]) -> bool:
    units = [_unit(one.shape) for one in group]
    if len(group) < FEW or None in units or len({unit[1] for unit in units if unit}) > 1:
        return False
    lengths = {unit[0] for unit in units if unit}
    return lengths == {1} or len(lengths) > 1 or len(group) > MANY


def _add(
    found: Keyed,
    file: str,
    leaf: str,
    group: Sequence[Array],
    opened: Opened,
    pool: str | None,
    roles: Mapping[str, _Role],
) -> Keyed:
    units = [unit for one in group if (unit := _unit(one.shape)) is not None]
    dim, longest = units[0][1], max(unit[0] for unit in units)
    if longest > 1 and pool is None:
        shortest = min(unit[0] for unit in units)
        length = f"{shortest}" if shortest == longest else f"{shortest} to {longest}"
        phrase = f"{len(group)} arrays{f' named {leaf}' if leaf else ''}, one per instance ({length} x {dim})"
        return replace(found, unpooled=(*found.unpooled, phrase))
    names = [one.name for one in group]
    keys = [one.key or roles[one.name].instance for one in group]
    shared = _shared_folder(keys)
    # bits of bfloat16 are read as float32
    dtype = str(np.result_type(*(np.dtype("float32" if one.dtype == BFLOAT16 else one.dtype) for one in group)))
    label = f"names of {leaf}" if leaf else "names"
    step = rows_per_block(dim, np.dtype(dtype).itemsize)

    def blocks() -> Iterator[Block]:
        with reading(file, leaf or None), opened() as fetch:
            for start in range(0, len(names), step):
                part = names[start : start + step]
                block = np.empty((len(part), dim), dtype=dtype)
                for row, name in enumerate(part):
                    block[row] = one_vector(fetch(name), dim, pool, Place(file, name))
                yield block, None

    vectors = Vectors(file, leaf or "vectors", len(names), dim, dtype, blocks, ids=label)
    column = text_column(label, [key[len(shared) :] for key in keys])
    return replace(found, vectors=(*found.vectors, vectors), columns=(*found.columns, column))


def _shared_folder(keys: Sequence[str]) -> str:
    first = keys[0].rpartition("/")[0]
    return f"{first}/" if first and all(key.startswith(f"{first}/") for key in keys) else ""


def one_vector(values: npt.NDArray[np.generic], dim: int, pool: str | None, place: Place) -> npt.NDArray[np.generic]:
    """Return the vector of one instance.

    Raises: DataError if it has another width, or several rows where none are pooled.
    """
    unit = _unit(values.shape) if values.size else None
    if unit is None or unit[1] != dim or (unit[0] > 1 and pool is None):
        raise DataError(
            what="arrays of one instance each differ in shape",
            at=place,
            found=f"shape {values.shape}",
            expected=f"{dim} columns" + ("" if pool else " in one row"),
            next_step="Write it again, or leave it out." if unit is None or unit[1] != dim else "Pass --pool mean.",
        )
    rows = values.reshape(1, *unit)
    vector: npt.NDArray[np.generic] = (pooled(rows, pool or "first"))[0]
    return vector


def splits(vectors: Sequence[Vectors], columns: Sequence[Column]) -> tuple[tuple[Vectors, ...], tuple[Column, ...]]:
    """Put groups called train, validation and test together, where each holds the same arrays.

    Returns: the arrays and columns, and a column ``split`` if there was anything to put together.
    """

    def parted(name: str | None) -> tuple[str, str]:
        top, _, rest = (name or "").strip("/").partition("/")
        return top, rest

    tops = {parted(one.name)[0] for one in vectors}
    inside: dict[str, set[tuple[str, int]]] = {top: set() for top in tops}
    for one in vectors:
        top, rest = parted(one.name)
        inside[top].add((rest, one.dim))
    rows = {(parted(one.name)[0], one.rows) for one in vectors}
    alike = len(tops) > 1 and len({frozenset(of) for of in inside.values()}) == 1 and len(rows) == len(tops)
    if not alike or any(top.lower() not in SPLIT_NAMES for top in tops) or "" in {parted(v.name)[1] for v in vectors}:
        return tuple(vectors), tuple(columns)
    order = sorted(tops, key=lambda top: SPLIT_NAMES.index(top.lower()))
    lengths = dict(rows)
    merged = []
    for rest in sorted({parted(one.name)[1] for one in vectors}):
        parts = [next(one for one in vectors if parted(one.name) == (top, rest)) for top in order]
        merged.append(chained(f"/{rest}", parts))
    sides = []
    for rest in sorted({parted(one.name)[1] for one in columns if parted(one.name)[0] in tops}):
        found = [one for top in order for one in columns if parted(one.name) == (top, rest)]
        if len(found) == len(order) and all(one.rows == lengths[top] for one, top in zip(found, order, strict=True)):
            sides.append(chained_columns(f"/{rest}", found))
    names = [name for top in order for name in [split_word(top)] * lengths[top]]
    return tuple(merged), (*sides, text_column("split", names))


def split_word(name: str) -> str:
    """Return train, validation or test for any of ``SPLIT_NAMES``."""
    word = name.lower()
    return "train" if word.startswith("train") else "validation" if word in ("val", "valid", "dev") else word


def chained(name: str | None, parts: Sequence[Vectors]) -> Vectors:
    """Return arrays of equal width one after the other as one."""

    def blocks() -> Iterator[Block]:
        for part in parts:
            for block, null in part.blocks():
                yield block.astype(dtype, copy=False), null

    kinds = {part.dtype for part in parts}
    dtype = kinds.pop() if len(kinds) == 1 else "float32"
    return replace(parts[0], name=name, rows=sum(part.rows for part in parts), dtype=dtype, blocks=blocks)


def chained_columns(name: str, parts: Sequence[Column]) -> Column:
    """Return columns one after the other as one."""
    import pyarrow as pa

    def load(*, text: bool = False) -> pa.Array:
        arrays = [part.load(text=text) for part in parts]
        return (
            pa.concat_arrays(arrays)
            if len({one.type for one in arrays}) == 1
            else pa.concat_arrays([one.cast(pa.large_string()) for one in arrays])
        )

    return Column(name, sum(part.rows for part in parts), all(part.nameable for part in parts), load)


def dims_of(shape: Sequence[int]) -> int:
    """Return the product of all axes but the first, at most ``MAX_DIM`` + 1."""
    return min(prod(int(size) for size in shape[1:]), MAX_DIM + 1)
