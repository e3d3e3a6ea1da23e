"""HDF5 feature files, and what pmrl does not read in them.

HDF5 can make a file read other files (external links, external storage, virtual datasets) and run plugins
(dynamic filters). What does is never opened: links are not followed, such datasets are named and left alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pmrl_cli.errors import Place, printable
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
from pmrl_cli.files.formats.layout import Array, Fetch, dims_of, keyed, rows_and_dim, shaped, splits
from pmrl_cli.files.formats.pandas_hdf import frames

__all__ = ["arrow_of", "column_of", "datasets_of", "inside", "probe", "storage_of", "vectors_of"]

_FILTERS = {
    h5py.h5z.FILTER_DEFLATE: "gzip",
    h5py.h5z.FILTER_SHUFFLE: "shuffle",
    h5py.h5z.FILTER_FLETCHER32: "fletcher32",
    h5py.h5z.FILTER_LZF: "lzf",
    h5py.h5z.FILTER_SZIP: "szip",
    h5py.h5z.FILTER_NBIT: "nbit",
    h5py.h5z.FILTER_SCALEOFFSET: "scale-offset",
}
_CHUNK_BAND_BYTES = 64 * 2**20
_MAX_CHUNK_BYTES = 2**30
_COLUMN_ROWS = 2**18
"""Strings read at a time; fewer if each is long."""

_STORED = "values stored in the file itself"

Refused = tuple[str, str, str]


def datasets_of(file: h5py.File) -> tuple[list[tuple[str, h5py.Dataset]], list[Refused]]:
    """Return the datasets of a file by the bytes of their names, and the links that lead out of it.

    Links are not followed: neither by the visit nor, as all the names it gives are hard links, by opening them.
    """
    outward: list[Refused] = []

    def look(name: bytes, info: Any) -> None:  # noqa: ANN401 - h5py has no type for it
        if info.type >= h5py.h5l.TYPE_EXTERNAL:
            kind = (
                "an external link to another file" if info.type == h5py.h5l.TYPE_EXTERNAL else "a user-defined link"
            )
            outward.append((f"/{name.decode(errors='replace')}", kind, _STORED))

    file.id.links.visit(look, info=True)
    names: list[bytes] = []

    def collect(name: bytes, info: Any) -> None:  # noqa: ANN401 - h5py has no type for it
        if info.type == h5py.h5o.TYPE_DATASET:
            names.append(name)

    h5py.h5o.visit(file.id, collect, info=True)
    return [(_text(name), h5py.Dataset(h5py.h5d.open(file.id, name))) for name in sorted(names)], outward


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def inside(file: h5py.Group, name: str) -> h5py.Group | h5py.Dataset | None:
    """Return what stands under a name, None if nothing does or a link other than a hard one is on the way."""
    item = file
    for part in name.split("/"):
        if not isinstance(item, h5py.Group) or not isinstance(item.get(part, getlink=True), h5py.HardLink):
            return None
        item = item[part]
    return item


@dataclass(frozen=True)
class _Survey:
    """The datasets of a file by what they may be.

    Args:
        names: of all.
        arrays: numbers of any shape that vectors may be made of.
        columns: of one value for each row.
        slow: names of arrays that gzip makes slow to read.
        others: what is neither, and why.
        refused: what is not opened, and why.
    """

    names: list[str]
    arrays: list[tuple[Array, h5py.Dataset]]
    columns: list[Column]
    slow: list[str]
    others: list[str]
    refused: list[Refused]


def probe(path: Path, options: ProbeOptions) -> Contents:
    """Return what an HDF5 file holds: its arrays and 1-D columns in all groups.

    Raises: DataError if it cannot be read; PolicyError for a declared size out of proportion to what is stored.
    """
    with reading(str(path)), h5py.File(path) as file:
        found = _survey(path, file)
        arrays, others = [array for array, _ in found.arrays], found.others
        each = keyed(str(path), arrays, found.columns, lambda: _opened(path), options.pool)
        vectors, unpooled = list(each.vectors), list(each.unpooled)
        for array, dataset in found.arrays:
            if array.name in each.names or len(array.shape) < 2:
                continue
            one = vectors_of(path, array, dataset, options.pool)
            if isinstance(one, Vectors):
                vectors.append(one)
            else:
                (unpooled if rows_and_dim(array.shape) else others).append(one)
        plain, ids, left = frames(path, file, found.names, vectors, found.columns)
    columns = [one for one in ids if one.name.lstrip("/") not in each.names]
    slow = sum(v.rows * v.dim * 4 for v in vectors if (v.name or "").lstrip("/") in found.slow)
    note = f"{printable(path.name)}: gzip reads about ten times slower than plain storage."
    merged, sides = splits(plain, columns)
    return Contents(
        str(path),
        merged,
        (*sides, *each.columns),
        (*others, *left),
        (note,) if slow > 2**30 else (),
        ("split",) if len(merged) < len(plain) else (),
        tuple(unpooled),
        tuple(found.refused),
    )


def _survey(path: Path, file: h5py.File) -> _Survey:
    """Return the datasets of a file by what they may be.

    Raises: PolicyError for a declared size out of proportion to what is stored.
    """
    datasets, refused = datasets_of(file)
    found = _Survey([name for name, _ in datasets], [], [], [], [], refused)
    declared = held = 0
    for name, dataset in datasets:
        kind, shape = dataset.dtype, dataset.shape
        if shape is None:  # an empty dataset of HDF5's null space
            found.others.append(f"{name} ({kind} without values)")
            continue
        text = kind.kind in "SU" or h5py.check_string_dtype(kind) is not None
        single = len(shape) > 1 and dims_of(shape) == 1
        number = kind.kind in "fiu" and 1 <= len(shape) <= 4 and dims_of(shape) <= MAX_DIM
        if not (number or ((len(shape) == 1 or single) and (text or kind.kind == "b"))):
            found.others.append(f"{name} ({kind} of shape {dataset.shape})")
            continue
        stored = storage_of(path, name, dataset)
        if isinstance(stored[0], str):
            refused.append(stored)
            continue
        declared, held = declared + stored[0], held + stored[1]
        if len(shape) == 1 or (single and kind.kind != "f"):
            found.columns.append(column_of(path, name, dataset))
        if kind.kind == "f" or (kind.kind in "iu" and len(shape) > 1 and not single):
            found.arrays.append((Array(name, shape, _native(dataset).name, _key_of(dataset)), dataset))
        if len(shape) > 1 and dataset.compression == "gzip":
            found.slow.append(name)
    refuse_bomb(Place(str(path)), declared, held)
    return found


def _native(dataset: h5py.Dataset) -> np.dtype[Any]:
    native: np.dtype[Any] = dataset.dtype.newbyteorder("=")
    return native


def _key_of(dataset: h5py.Dataset) -> str | None:
    """Return the id that a dataset of one instance carries as an attribute."""
    if not h5py.h5a.get_num_attrs(dataset.id):
        return None
    value = dataset.attrs.get("original_id")
    return value.decode() if isinstance(value, bytes) else None if value is None else str(value)


@contextmanager
def _opened(path: Path) -> Iterator[Fetch]:
    with h5py.File(path) as file:
        yield lambda name: h5py.Dataset(h5py.h5d.open(file.id, name.encode("utf-8", "surrogateescape")))[()]


def vectors_of(path: Path, array: Array, dataset: h5py.Dataset, pool: str | None) -> Vectors | str:
    """Return a dataset of two axes or more as vectors, or a phrase on why it is none."""
    sizes = rows_and_dim(array.shape)
    if sizes is None:
        return f"{array.name} ({dataset.dtype} of shape {array.shape})"
    rows, length, dim = sizes
    native = _native(dataset)
    step = rows_per_block(length * dim, native.itemsize)
    if dataset.chunks is not None and dataset.chunks[0] * length * dim * native.itemsize <= _CHUNK_BAND_BYTES:
        # whole chunks, or each would be read and unpacked twice
        step = -(-step // dataset.chunks[0]) * dataset.chunks[0]
    step = max(1, min(step, rows))
    inner = array.shape[1:]

    def blocks() -> Iterator[Block]:
        with reading(str(path), f"/{array.name}"), h5py.File(path) as file:
            source = file[array.name]
            buffers = cycle([np.empty((step, *inner), dtype=native) for _ in range(2)])
            for start in range(0, rows, step):
                count, buffer = min(step, rows - start), next(buffers)
                source.read_direct(buffer, np.s_[start : start + count], np.s_[:count])
                yield buffer[:count].reshape(count, -1), None

    flat = Vectors(str(path), f"/{array.name}", rows, dim, native.name, blocks)
    return shaped(flat, array.shape, pool)


def column_of(path: Path, name: str, dataset: h5py.Dataset) -> Column:
    """Return a dataset of one value a row as a column."""
    rows = int(dataset.shape[0])
    text = dataset.dtype.kind in "SU" or h5py.check_string_dtype(dataset.dtype) is not None

    def load(*, text: bool = False) -> pa.Array:
        with reading(str(path), f"/{name}"), h5py.File(path) as file:
            source = file[name]
            step = min(_COLUMN_ROWS, rows_per_block(1, source.dtype.itemsize))
            parts = [arrow_of(source[start : start + step].reshape(-1)) for start in range(0, rows, step)]
            return pa.concat_arrays(parts) if parts else pa.array([], pa.large_string())

    return Column(f"/{name}", rows, text or dataset.dtype.kind in "iu", load)


def arrow_of(values: npt.NDArray[np.generic]) -> pa.Array:
    """Return numbers, or text as its bytes."""
    if values.dtype.kind not in "OS":
        return pa.array(values.astype(values.dtype.newbyteorder("=")))
    return pa.array(values.tolist(), pa.large_binary())


def storage_of(path: Path, name: str, dataset: h5py.Dataset) -> tuple[int, int] | Refused:
    """Return the bytes a dataset declares and stores, or why it is not read.

    Raises: PolicyError if it declares far more than it stores.
    """
    shown = f"/{name}"
    created = dataset.id.get_create_plist()
    if created.get_layout() == h5py.h5d.VIRTUAL:
        return shown, "a virtual dataset", _STORED
    if created.get_external_count():
        return shown, "external storage in another file", _STORED
    for index in range(created.get_nfilters()):
        code = created.get_filter(index)[0]
        if code not in _FILTERS or not h5py.h5z.filter_avail(code):
            return shown, f"filter {code}", f"one of {', '.join(sorted(_FILTERS.values()))}"
    if dataset.chunks is not None:
        chunk = prod(int(size) for size in dataset.chunks) * int(dataset.dtype.itemsize)
        if chunk > _MAX_CHUNK_BYTES:
            return shown, f"a chunk of {chunk} bytes", f"chunks of at most {_MAX_CHUNK_BYTES}"
    # in Python's numbers: those of dataset.nbytes wrap
    declared = prod(int(size) for size in dataset.shape) * int(dataset.dtype.itemsize)
    stored = int(dataset.id.get_storage_size())
    refuse_bomb(Place(str(path), shown), declared, stored)
    return declared, stored
