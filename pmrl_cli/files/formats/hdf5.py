"""HDF5 feature files, and what pmrl refuses in them.

HDF5 can make a file read other files (external links, external storage, virtual datasets) and run plugins
(dynamic filters). A file that does is refused before any of it is opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pmrl_cli.errors import Place, PolicyError, printable
from pmrl_cli.files.formats.contents import (
    MAX_DIM,
    Block,
    Column,
    Contents,
    Vectors,
    reading,
    refuse_bomb,
    rows_per_block,
)

__all__ = ["probe_hdf5"]

_FILTERS = {
    h5py.h5z.FILTER_DEFLATE: "gzip",
    h5py.h5z.FILTER_SHUFFLE: "shuffle",
    h5py.h5z.FILTER_FLETCHER32: "fletcher32",
    h5py.h5z.FILTER_LZF: "lzf",
}
_CHUNK_BAND_BYTES = 64 * 2**20
_COLUMN_ROWS = 2**18
"""Strings read at a time; fewer if each is long."""


def probe_hdf5(path: Path) -> Contents:
    """Return what an HDF5 file holds: its 2-D arrays and 1-D columns in all groups.

    Raises: DataError if it cannot be read; PolicyError for external links, external storage, virtual datasets,
        unknown filters or a declared size out of proportion to what is stored.
    """
    vectors: list[Vectors] = []
    columns: list[Column] = []
    others: list[str] = []
    slow: list[str] = []
    sizes: list[tuple[int, int]] = []
    with reading(str(path)), h5py.File(path) as file:
        # visititems follows no links while indexing a path does; with no external link anywhere, soft links stay
        # inside. An error raised within the visit would come out as a SystemError, so it is raised after.
        outward: list[str] = []
        file.visititems_links(
            lambda name, link: outward.append(name) if isinstance(link, h5py.ExternalLink) else None
        )
        if outward:
            raise _refusal(path, outward[0], "an external link to another file")
        datasets: list[tuple[str, Any]] = []
        file.visititems(lambda name, item: datasets.append((name, item)) if isinstance(item, h5py.Dataset) else None)
        for name, dataset in sorted(datasets, key=lambda pair: pair[0].encode(errors="surrogateescape")):
            kind = dataset.dtype
            if dataset.ndim == 2 and kind.kind in "fiu" and 0 < dataset.shape[1] <= MAX_DIM:
                sizes.append(_refuse_storage(path, name, dataset))
                vectors.append(_vectors(path, name, dataset))
                if dataset.compression == "gzip":
                    slow.append(name)
            elif dataset.ndim == 1 and (kind.kind in "SUiufb" or h5py.check_string_dtype(kind) is not None):
                sizes.append(_refuse_storage(path, name, dataset))
                columns.append(_column(path, name, dataset))
            else:
                others.append(f"{name} ({kind} of shape {dataset.shape})")
        refuse_bomb(Place(str(path)), sum(size for size, _ in sizes), sum(stored for _, stored in sizes))
    size = sum(v.rows * v.dim * 4 for v in vectors if v.name in slow)
    notes = (
        (f"{printable(path.name)}: gzip reads about ten times slower than plain storage.",) if size > 2**30 else ()
    )
    return Contents(str(path), tuple(vectors), tuple(columns), tuple(others), notes)


def _vectors(path: Path, name: str, dataset: h5py.Dataset) -> Vectors:
    rows, dim = (int(size) for size in dataset.shape)
    native = dataset.dtype.newbyteorder("=")
    step = rows_per_block(dim, native.itemsize)
    if dataset.chunks is not None and dataset.chunks[0] * dim * native.itemsize <= _CHUNK_BAND_BYTES:
        # whole chunks, or each would be read and unpacked twice
        step = -(-step // dataset.chunks[0]) * dataset.chunks[0]
    step = max(1, min(step, rows))

    def blocks() -> Iterator[Block]:
        with reading(str(path), f"/{name}"), h5py.File(path) as file:
            source = file[name]
            buffers = cycle([np.empty((step, dim), dtype=native) for _ in range(2)])
            for start in range(0, rows, step):
                count, buffer = min(step, rows - start), next(buffers)
                source.read_direct(buffer, np.s_[start : start + count], np.s_[:count])
                yield buffer[:count], None

    return Vectors(str(path), f"/{name}", rows, dim, native.name, blocks)


def _column(path: Path, name: str, dataset: h5py.Dataset) -> Column:
    rows = int(dataset.shape[0])
    text = dataset.dtype.kind in "SU" or h5py.check_string_dtype(dataset.dtype) is not None

    def load(*, text: bool = False) -> pa.Array:
        with reading(str(path), f"/{name}"), h5py.File(path) as file:
            source = file[name]
            step = min(_COLUMN_ROWS, rows_per_block(1, source.dtype.itemsize))
            parts = [_arrow(source[start : start + step]) for start in range(0, rows, step)]
            return pa.concat_arrays(parts) if parts else pa.array([], pa.large_string())

    return Column(f"/{name}", rows, text or dataset.dtype.kind in "iu", load)


def _arrow(values: npt.NDArray[np.generic]) -> pa.Array:
    if values.dtype.kind not in "OS":
        return pa.array(values.astype(values.dtype.newbyteorder("=")))
    return pa.array(values.tolist(), pa.large_binary())


def _refuse_storage(path: Path, name: str, dataset: h5py.Dataset) -> tuple[int, int]:
    """Return the bytes a dataset declares and stores, if it holds its values itself."""
    created = dataset.id.get_create_plist()
    if created.get_layout() == h5py.h5d.VIRTUAL:
        raise _refusal(path, name, "a virtual dataset")
    if created.get_external_count():
        raise _refusal(path, name, "external storage in another file")
    for index in range(created.get_nfilters()):
        code = created.get_filter(index)[0]
        if code not in _FILTERS:
            raise _refusal(path, name, f"filter {code}", f"one of {', '.join(sorted(_FILTERS.values()))}")
    # in Python's numbers: those of dataset.nbytes wrap
    declared = prod(int(size) for size in dataset.shape) * int(dataset.dtype.itemsize)
    stored = int(dataset.id.get_storage_size())
    refuse_bomb(Place(str(path), f"/{name}"), declared, stored)
    return declared, stored


def _refusal(path: Path, name: str, found: str, expected: str = "values stored in the file itself") -> PolicyError:
    return PolicyError(
        what="refused",
        at=Place(str(path), f"/{name}"),
        found=found,
        expected=expected,
        next_step="Copy the values themselves into a plain HDF5 file.",
    )
