"""npz: several arrays by name; or, where they are one for each instance, by id."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy.typing as npt

from pmrl_cli.errors import Place
from pmrl_cli.files.formats.arrays import Header, Opener, npy_array, npy_column, npy_vectors, read_array
from pmrl_cli.files.formats.contents import Column, Contents, ProbeOptions, Refused, Vectors, reading, refuse_bomb
from pmrl_cli.files.formats.layout import Fetch, keyed
from pmrl_cli.files.formats.npy import check_header

__all__ = ["probe"]


def probe(path: Path, options: ProbeOptions) -> Contents:
    """Return the arrays of an npz file: those of one value a row as columns, the others as vectors.

    A member of pickled objects is named and left alone.

    Raises: DataError if it cannot be read or is cut short.
    """
    headers: dict[str, Header] = {}
    refused: list[Refused] = []
    with reading(str(path)), zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.filename.endswith(".npy"):
                continue
            name = info.filename[:-4]
            refuse_bomb(Place(str(path), name), info.file_size, info.compress_size)
            with archive.open(info.filename) as file:
                header = Header(file)
            if header.dtype.hasobject:
                refused.append(
                    Refused(
                        name,
                        "pickled Python objects",
                        "an array of numbers or text",
                        "Save it again with a numeric or string dtype.",
                    )
                )
                continue
            check_header(path, name, header, info.file_size)
            headers[name] = header
    columns = [
        column for name, header in headers.items() if (column := npy_column(path, name, _opener(path, name), header))
    ]
    arrays = [array for name, header in headers.items() if (array := npy_array(name, header)) is not None]
    each = keyed(str(path), arrays, columns, lambda: _fetching(path), options.pool)
    vectors: list[Vectors] = list(each.vectors)
    others: list[str] = []
    unpooled: list[str] = list(each.unpooled)
    kept: list[Column] = [one for one in columns if one.name not in each.names]
    for name, header in headers.items():
        if name in each.names or any(one.name == name for one in kept):
            continue
        found = npy_vectors(path, name, _opener(path, name), header, options.pool)
        if isinstance(found, Vectors):
            vectors.append(found)
        elif found is not None:
            unpooled.append(found)
        else:
            others.append(f"{name} ({header.native} of shape {header.shape})")
    return Contents(
        str(path),
        tuple(vectors),
        (*kept, *each.columns),
        tuple(others),
        side=("split",) if each.split else (),
        unpooled=tuple(unpooled),
        refused=tuple(refused),
    )


def _opener(path: Path, name: str) -> Opener:
    @contextmanager
    def opened() -> Iterator[IO[bytes]]:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
            yield file

    return opened


@contextmanager
def _fetching(path: Path) -> Iterator[Fetch]:
    with zipfile.ZipFile(path) as archive:

        def fetch(name: str) -> npt.NDArray[Any]:
            with archive.open(f"{name}.npy") as file:
                return read_array(file)

        yield fetch
