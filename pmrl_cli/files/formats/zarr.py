"""zarr stores, of version 2 and 3: arrays in groups, or an AnnData or MuData.

What a store declares is read here from its JSON files, and checked against known codecs, before the library opens
it: a codec of zarr may unpickle what it finds.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from pmrl_cli.errors import Place
from pmrl_cli.files.formats.annotated import annotated, is_annotated
from pmrl_cli.files.formats.contents import Contents, ProbeOptions, Refused, reading, refuse_bomb
from pmrl_cli.files.formats.layout import splits
from pmrl_cli.files.formats.tree import MAX_CHUNK_BYTES, Node, Rows, arrays_of, declared_bytes

__all__ = ["probe"]

_METADATA = (".zarray", ".zgroup", ".zattrs", "zarr.json")
_CODECS = (
    *("blosc", "zlib", "gzip", "zstd", "lz4", "bz2", "lzma", "shuffle", "delta", "vlen-utf8", "vlen-bytes"),
    *("bytes", "transpose", "crc32c", "sharding_indexed"),
)
_METADATA_BYTES = 16 * 2**20


def probe(path: Path, options: ProbeOptions) -> Contents:
    """Return what a zarr store holds: its arrays and 1-D columns in all groups, or its observations.

    Raises: DataError if it cannot be read; PolicyError for a declared size out of proportion to what is stored.
    """
    with reading(str(path)):
        tree = _ZarrTree(path)
        if is_annotated(tree):
            return annotated(tree, options)
        found = arrays_of(tree, tree.nodes(), options)
    columns = [one for one in found.columns if one.name.lstrip("/") not in found.keyed.names]
    merged, sides = splits(found.vectors, columns)
    return Contents(
        str(path),
        merged,
        (*sides, *found.keyed.columns),
        tuple(found.others),
        (),
        ("split",) if found.keyed.split or len(merged) < len(found.vectors) else (),
        tuple(found.unpooled),
        tuple(found.refused),
    )


class _ZarrTree:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._declared: dict[str, dict[str, Any]] = {}
        self._stored: dict[str, int] = {}
        self._find()

    def _find(self) -> None:
        """Read the metadata of every array and group; what lies in the folder of an array are its chunks."""
        top = str(self.path)
        inside: str | None = None  # the array whose folder is walked
        for folder, _, files in os.walk(top):
            name = "" if folder == top else os.path.relpath(folder, top)
            if inside is None or not (name == inside or name.startswith(f"{inside}/") or inside == ""):
                inside = None
                declared = _declared(Path(folder), files)
                if declared is not None:
                    self._declared[name] = declared
                    inside = name if "shape" in declared else None
            if inside is not None:
                size = sum(os.lstat(f"{folder}/{file}").st_size for file in files if file not in _METADATA)
                self._stored[inside] = self._stored.get(inside, 0) + size

    def nodes(self) -> list[Node]:
        """Return all arrays, by their names."""
        found = [self.node(name) for name in sorted(self._declared)]
        return [one for one in found if one is not None]

    def node(self, name: str) -> Node | None:
        """Return an array."""
        declared = self._declared.get(name)
        if declared is None or "shape" not in declared:
            return None
        shape = tuple(int(size) for size in declared["shape"])
        dtype, text = _dtype(declared)
        chunks = _chunks(declared)
        key = declared["attributes"].get("original_id")
        return Node(name or self.path.stem, shape, dtype, text, chunks[0] if chunks else None, key and str(key))

    def group(self, name: str) -> list[str] | None:
        """Return the names in a group."""
        if "shape" in self._declared.get(name, {"shape": ()}):
            return None
        start = f"{name}/" if name else ""
        inner = [one for one in self._declared if one.startswith(start) and one != name]
        return sorted(one for one in (one[len(start) :] for one in inner) if "/" not in one)

    def attribute(self, name: str, key: str) -> Any:  # noqa: ANN401 - a value of JSON
        """Return an attribute."""
        return self._declared.get(name, {"attributes": {}})["attributes"].get(key)

    def stored(self, node: Node) -> tuple[int, int] | Refused:
        """Return the bytes an array declares and stores, or why it is not read."""
        name = node.name if node.name in self._declared else ""
        declared, shown = self._declared[name], f"/{node.name}"
        for codec in _codecs(declared):
            if codec not in _CODECS:
                return Refused(shown, f"codec {codec}", f"one of {', '.join(_CODECS)}")
        if node.dtype.kind == "O" and not node.text:
            return Refused(shown, f"elements of type {declared.get('data_type', 'object')}", "numbers or text")
        chunk = declared_bytes(_chunks(declared), node.dtype)
        if chunk > MAX_CHUNK_BYTES:
            return Refused(shown, f"a chunk of {chunk} bytes", f"chunks of at most {MAX_CHUNK_BYTES}")
        size, stored = declared_bytes(node.shape or (), node.dtype), self._stored.get(name, 0)
        refuse_bomb(Place(str(self.path), shown), size, stored)
        return size, stored

    @contextmanager
    def reader(self) -> Iterator[Rows]:
        """Open each array that is read."""
        opened: dict[str, Any] = {}

        def rows(name: str, some: slice, out: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
            if name not in opened:
                folder = self.path / name if name in self._declared else self.path
                if _codecs(self._declared.get(name) or self._declared[""])[-1:] == ["blosc"]:
                    _check_blosc(folder)
                opened[name] = zarr.open_array(zarr.storage.LocalStore(folder, read_only=True), mode="r")
            values: npt.NDArray[Any] = np.asarray(opened[name][some])
            if out is None:
                return values
            out[...] = values
            return out

        yield rows


def _check_blosc(folder: Path) -> None:
    """Hold chunks to the length that their header says: blosc reads on where a file ends early.

    Raises: ValueError.
    """
    for top, _, files in os.walk(folder):
        for name in files:
            path = Path(top, name)
            if name in _METADATA:
                continue
            with path.open("rb") as file:
                said = int.from_bytes(file.read(16)[12:], "little")
            if said != path.stat().st_size:
                message = f"{path.stat().st_size} bytes in {path.relative_to(folder)} where its header says {said}"
                raise ValueError(message)


def _declared(folder: Path, files: Sequence[str]) -> dict[str, Any] | None:
    """Return what the metadata of an array or a group say; None of any other folder."""
    name = next((one for one in ("zarr.json", ".zarray", ".zgroup") if one in files), None)
    if name is None:
        return None
    found = _json(folder / name)
    attributes = _json(folder / ".zattrs") if ".zattrs" in files else found.get("attributes", {})
    if not isinstance(attributes, Mapping):
        message = f"attributes that are no object in {name}"
        raise ValueError(message)
    is_array = name == ".zarray" or found.get("node_type") == "array"
    if is_array != ("shape" in found):
        message = f"no shape of an array in {name}"
        raise ValueError(message)
    return {**found, "attributes": attributes}


def _json(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _METADATA_BYTES:
        message = f"{path.name} of {path.stat().st_size} bytes"
        raise ValueError(message)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        found = None
    if not isinstance(found, dict):
        message = f"{path.name} holds no object"
        raise ValueError(message)
    return found


def _dtype(declared: Mapping[str, Any]) -> tuple[np.dtype[Any], bool]:
    """Return the type of an array, and whether it is text; of objects where it is neither text nor numbers."""
    if "data_type" not in declared:  # version 2
        dtype = np.dtype(declared["dtype"])
        return dtype, dtype.kind in "SU" or (dtype.kind == "O" and "vlen-utf8" in _codecs(declared))
    kind = declared["data_type"]
    if kind == "string":
        return np.dtype(object), True
    if isinstance(kind, Mapping) and kind.get("name") == "fixed_length_utf32":
        return np.dtype(f"U{int(kind['configuration']['length_bytes']) // 4}"), True
    if isinstance(kind, Mapping) and kind.get("name") == "null_terminated_bytes":
        return np.dtype(f"S{int(kind['configuration']['length_bytes'])}"), True
    try:
        dtype = np.dtype(kind if isinstance(kind, str) else "O")
    except TypeError:
        return np.dtype(object), False
    return dtype, False


def _chunks(declared: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the shape of what is unpacked as one: of a shard, all of it."""
    chunks = declared.get("chunks") or declared["chunk_grid"]["configuration"]["chunk_shape"]
    return tuple(int(size) for size in chunks)


def _codecs(declared: Mapping[str, Any]) -> list[str]:
    """Return the names of all codecs, those inside of shards among them."""
    found: list[str] = []
    for one in [*(declared.get("filters") or []), declared.get("compressor"), *(declared.get("codecs") or [])]:
        if one is None:
            continue
        found.append(str(one.get("id") or one.get("name")))
        inner = one.get("configuration") or {}
        found += _codecs({"codecs": [*inner.get("codecs", []), *inner.get("index_codecs", [])]})
    return found
