"""The STORE: a folder of npy files that opens by memory map, described by its manifest."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pmrl_cli.data.dataset import Dataset, Features
from pmrl_cli.errors import DataError, Place
from pmrl_cli.files.durable.checksums import check_files, read_manifest
from pmrl_cli.files.durable.outputs import MANIFEST
from pmrl_cli.files.formats import npy, sandbox_client
from pmrl_cli.files.formats.contents import (
    BFLOAT16,
    Block,
    Column,
    Contents,
    ProbeOptions,
    Vectors,
    reading,
)
from pmrl_cli.files.formats.registry import format_named
from pmrl_cli.files.formats.regular import check_regular

__all__ = [
    "EXPORT",
    "FILE_NAME",
    "STORE",
    "check_listed",
    "check_unread",
    "folder_format",
    "open_store",
    "probe",
    "space_of",
]

STORE = "pmrl.store"
EXPORT = "pmrl.export"

FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
"""What a modality must be called for its rows to be a file of the store."""

IDS = "ids.parquet"
PRESENT = "present.npy"


def folder_format(path: Path) -> str | None:
    """Return the ``format`` of a folder that pmrl wrote, None for any other folder.

    Raises: as ``read_manifest``.
    """
    manifest = read_manifest(path)
    return None if manifest is None else str(manifest.get("format"))


def space_of(export: Path) -> list[str]:
    """Return the modalities of an export, without what one has besides its vectors: predictions, what is unique, ...

    Raises: as ``read_manifest``.
    """
    listed = (read_manifest(export) or {}).get("modalities", {})
    return [name for name, entry in listed.items() if "of" not in entry]


def check_listed(file: Path) -> None:
    """Check a file that an export around it lists against its digest there; any other file is left alone.

    Raises: StateError if the file, or the manifest, has changed since it was written.
    """
    for folder in (file.parent, file.parent.parent):
        try:
            manifest = read_manifest(folder) or {}
        except DataError:  # a manifest of another program
            continue
        name = file.relative_to(folder).as_posix()
        listed = manifest.get("files", {})
        check_files(folder, {name: listed[name]} if name in listed else {})


def check_unread(export: Path, read: Collection[Path]) -> None:
    """Hold the files of an export that will not be read, as what is fused, to their digests: the others are read.

    Raises: StateError naming one that is lost or has changed.
    """
    listed = (read_manifest(export) or {}).get("files", {})
    check_files(export, {name: digest for name, digest in listed.items() if export / name not in read})


@dataclass(frozen=True)
class _Store:
    """What a manifest says, checked against the files it names."""

    rows: int
    modalities: list[dict[str, Any]]
    named_by_row: bool
    notes: tuple[str, ...]

    @property
    def space(self) -> list[int]:
        """The modalities, without what an export has besides one."""
        return [index for index, entry in enumerate(self.modalities) if entry["of"] is None]


def _damaged(path: Path, found: str, expected: str) -> DataError:
    return DataError(
        what="store is damaged",
        at=Place(str(path)),
        found=found,
        expected=expected,
        next_step="Write it again with pmrl ingest.",
    )


def _read_store(path: Path) -> _Store:
    manifest = read_manifest(path) or {}
    check_files(path, manifest.get("files", {}))
    try:
        store = _Store(
            int(manifest["rows"]),
            [
                {key: entry[key] for key in ("name", "dtype", "dim", "digest")}
                | {"axes": str(entry.get("axes", "")), "of": entry.get("of")}
                for entry in manifest["modalities"]
            ],
            bool(manifest["ids"]["named_by_row"]),
            tuple(manifest["notes"]),
        )
        named = all(FILE_NAME.fullmatch(entry["name"]) for entry in store.modalities)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise _damaged(path / MANIFEST, "a manifest without its entries", "one written by pmrl ingest") from None
    if not named:
        raise _damaged(path / MANIFEST, "a modality whose name is no file's", "names as pmrl ingest writes them")
    for entry in store.modalities:
        file = path / f"{entry['name']}.npy"
        check_regular(file)
        arrays = npy.probe(file, ProbeOptions()).vectors
        dtype = "uint16" if entry["dtype"] == BFLOAT16 else entry["dtype"]
        wanted = f"{store.rows} x {entry['dim']} {dtype}"
        found = f"{arrays[0].rows} x {arrays[0].dim} {arrays[0].dtype}" if arrays else "no 2-D array"
        if found != wanted:
            raise _damaged(file, found, f"{wanted} as in the manifest")
    return store


def _present(path: Path, store: _Store) -> npt.NDArray[np.bool_]:
    file = path / PRESENT
    check_regular(file)
    with reading(str(file)):
        present: npt.NDArray[np.bool_] = np.load(file, allow_pickle=False)
    wanted = (store.rows, len(store.modalities))
    if present.dtype != np.bool_ or present.shape != wanted:
        raise _damaged(file, f"{present.dtype} of shape {present.shape}", f"bool of shape {wanted}")
    return present


def _ids_table(path: Path, store: _Store) -> pa.Table:
    file = path / IDS
    check_regular(file)
    columns = sandbox_client.probe(format_named("parquet"), file, ProbeOptions()).columns
    table = pa.table({column.name: column.load() for column in columns})
    if len(table) != store.rows or table.column_names[:1] != ["id"]:
        raise _damaged(file, f"{len(table)} rows of {', '.join(table.column_names)}", f"{store.rows} rows with id")
    return table


def _combined(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def open_store(path: Path) -> Dataset:
    """Open a STORE by memory map, once every byte of it has been checked against its digest.

    Raises: DataError if files are not what the manifest says; StateError if they are lost or have changed, and for
        another version of the format.
    """
    store = _read_store(path)
    table = _ids_table(path, store)
    modalities = tuple(
        Features(
            entry["name"],
            np.load(path / f"{entry['name']}.npy", mmap_mode="r", allow_pickle=False),
            entry["dtype"] == BFLOAT16,
            entry["digest"],
            axes=entry["axes"],
        )
        for entry in (store.modalities[index] for index in store.space)
    )
    return Dataset(
        _combined(table, "id").cast(pa.large_string()),
        modalities,
        np.ascontiguousarray(_present(path, store)[:, store.space]),
        {name: _combined(table, name) for name in table.column_names[1:]},
        store.named_by_row,
        store.notes,
    )


def probe(path: Path, options: ProbeOptions) -> Contents:
    """Return what a STORE holds, to be joined with other files: an absent modality is a null row there.

    Raises: as ``open_store``.
    """
    store = _read_store(path)
    present = _present(path, store)
    table = _ids_table(path, store)
    vectors = []
    for index in store.space:
        entry = store.modalities[index]
        source = npy.probe(path / f"{entry['name']}.npy", ProbeOptions()).vectors[0]
        blocks = partial(_with_absent, source.blocks, ~present[:, index])
        about = (str(path), entry["name"], source.rows, source.dim, entry["dtype"])
        vectors.append(Vectors(*about, blocks, modality=entry["name"], axes=entry["axes"]))
    columns = [
        Column(name, store.rows, name == "id", _loader(table, name))
        for name in table.column_names
        if name != "id" or not store.named_by_row  # numbers of rows are no ids
    ]
    return Contents(str(path), tuple(vectors), tuple(columns), notes=store.notes, side=tuple(table.column_names[1:]))


def _loader(table: pa.Table, name: str) -> Callable[..., pa.Array]:
    def load(*, text: bool = False) -> pa.Array:
        return _combined(table, name)

    return load


def _with_absent(blocks: Callable[[], Iterator[Block]], absent: npt.NDArray[np.bool_]) -> Iterator[Block]:
    start = 0
    for block, _ in blocks():
        yield block, absent[start : start + len(block)]
        start += len(block)
