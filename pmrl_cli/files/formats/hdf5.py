"""HDF5 feature files, and what pmrl does not read in them.

HDF5 can make a file read other files (external links, external storage, virtual datasets) and run plugins
(dynamic filters). What does is never opened: links are not followed, such datasets are named and left alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy.typing as npt

from pmrl_cli.errors import Place, printable
from pmrl_cli.files.formats.contents import Contents, ProbeOptions, Refused, reading, refuse_bomb
from pmrl_cli.files.formats.layout import splits
from pmrl_cli.files.formats.pandas_hdf import frames
from pmrl_cli.files.formats.tree import MAX_CHUNK_BYTES, Node, Rows, arrays_of, declared_bytes

__all__ = ["Hdf5Tree", "datasets_of", "probe", "storage_of"]

_FILTERS = {
    h5py.h5z.FILTER_DEFLATE: "gzip",
    h5py.h5z.FILTER_SHUFFLE: "shuffle",
    h5py.h5z.FILTER_FLETCHER32: "fletcher32",
    h5py.h5z.FILTER_LZF: "lzf",
    h5py.h5z.FILTER_SZIP: "szip",
    h5py.h5z.FILTER_NBIT: "nbit",
    h5py.h5z.FILTER_SCALEOFFSET: "scale-offset",
}
_STORED = "values stored in the file itself"


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
            outward.append(Refused(f"/{name.decode(errors='replace')}", kind, _STORED))

    file.id.links.visit(look, info=True)
    names: list[bytes] = []

    def collect(name: bytes, info: Any) -> None:  # noqa: ANN401 - h5py has no type for it
        if info.type == h5py.h5o.TYPE_DATASET:
            names.append(name)

    h5py.h5o.visit(file.id, collect, info=True)
    return [(_text(name), h5py.Dataset(h5py.h5d.open(file.id, name))) for name in sorted(names)], outward


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


class Hdf5Tree:
    """An open HDF5 file.

    Args:
        path: as the user typed it.
        file: open.
    """

    def __init__(self, path: Path, file: h5py.File) -> None:
        self.path = path
        self._file = file

    def _inside(self, name: str) -> h5py.Group | h5py.Dataset | None:
        """Return what stands under a name, None if nothing does or a link other than a hard one is on the way."""
        item = self._file
        for part in filter(None, name.split("/")):
            if not isinstance(item, h5py.Group) or not isinstance(item.get(part, getlink=True), h5py.HardLink):
                return None
            item = item[part]
        return item

    def node(self, name: str) -> Node | None:
        """Return a dataset."""
        item = self._inside(name)
        return _node(name, item) if isinstance(item, h5py.Dataset) else None

    def group(self, name: str) -> list[str] | None:
        """Return the names in a group."""
        item = self._inside(name)
        return sorted(item) if isinstance(item, h5py.Group) else None

    def attribute(self, name: str, key: str) -> Any:  # noqa: ANN401 - a number, a text or an array
        """Return an attribute, bytes as text."""
        item = self._inside(name)
        value = None if item is None else item.attrs.get(key)
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

    def stored(self, node: Node) -> tuple[int, int] | Refused:
        """Return the bytes a dataset declares and stores, or why it is not read."""
        return storage_of(self.path, node.name, _open(self._file, node.name))

    @contextmanager
    def reader(self) -> Iterator[Rows]:
        """Open the file again."""
        with h5py.File(self.path) as file:

            def rows(name: str, some: slice, out: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
                dataset = _open(file, name)
                if out is None:
                    values: npt.NDArray[Any] = dataset[some]
                    return values
                dataset.read_direct(out, some)
                return out

            yield rows


def _open(file: h5py.File, name: str) -> h5py.Dataset:
    return h5py.Dataset(h5py.h5d.open(file.id, name.encode("utf-8", "surrogateescape")))


def _node(name: str, dataset: h5py.Dataset) -> Node:
    kind = dataset.dtype
    text = kind.kind in "SU" or h5py.check_string_dtype(kind) is not None
    chunk = None if dataset.chunks is None else int(dataset.chunks[0])
    return Node(name, dataset.shape, kind, text, chunk, _key_of(dataset), dataset.compression == "gzip")


def probe(path: Path, options: ProbeOptions) -> Contents:
    """Return what an HDF5 file holds: its arrays and 1-D columns in all groups.

    Raises: DataError if it cannot be read; PolicyError for a declared size out of proportion to what is stored.
    """
    with reading(str(path)), h5py.File(path) as file:
        datasets, outward = datasets_of(file)
        found = arrays_of(Hdf5Tree(path, file), [_node(name, dataset) for name, dataset in datasets], options)
        plain, ids, left = frames(path, file, [name for name, _ in datasets], found.vectors, found.columns)
    columns = [one for one in ids if one.name.lstrip("/") not in found.keyed.names]
    size = sum(v.rows * v.dim * 4 for v in found.vectors if v.name in found.slow)
    notes = (
        (f"{printable(path.name)}: gzip reads about ten times slower than plain storage.",) if size > 2**30 else ()
    )
    merged, sides = splits(plain, columns)
    return Contents(
        str(path),
        merged,
        (*sides, *found.keyed.columns),
        (*found.others, *left),
        notes,
        ("split",) if found.keyed.split or len(merged) < len(plain) else (),
        tuple(found.unpooled),
        (*outward, *found.refused),
    )


def _key_of(dataset: h5py.Dataset) -> str | None:
    """Return the id that a dataset of one instance carries as an attribute."""
    if not h5py.h5a.get_num_attrs(dataset.id):
        return None
    value = dataset.attrs.get("original_id")
    return value.decode() if isinstance(value, bytes) else None if value is None else str(value)


def storage_of(path: Path, name: str, dataset: h5py.Dataset) -> tuple[int, int] | Refused:
    """Return the bytes a dataset declares and stores, or why it is not read.

    Raises: PolicyError if it declares far more than it stores.
    """
    shown = f"/{name}"
    created = dataset.id.get_create_plist()
    if created.get_layout() == h5py.h5d.VIRTUAL:
        return Refused(shown, "a virtual dataset", _STORED)
    if created.get_external_count():
        return Refused(shown, "external storage in another file", _STORED)
    for index in range(created.get_nfilters()):
        code = created.get_filter(index)[0]
        if code not in _FILTERS or not h5py.h5z.filter_avail(code):
            return Refused(shown, f"filter {code}", f"one of {', '.join(sorted(_FILTERS.values()))}")
    if dataset.chunks is not None:
        chunk = declared_bytes(dataset.chunks, dataset.dtype)
        if chunk > MAX_CHUNK_BYTES:
            return Refused(shown, f"a chunk of {chunk} bytes", f"chunks of at most {MAX_CHUNK_BYTES}")
    declared = declared_bytes(dataset.shape, dataset.dtype)
    stored = int(dataset.id.get_storage_size())
    refuse_bomb(Place(str(path), shown), declared, stored)
    return declared, stored
