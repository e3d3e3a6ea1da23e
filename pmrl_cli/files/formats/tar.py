"""tar as WebDataset writes it: for each instance ``KEY.npy``, or ``KEY.NAME.npy`` of each modality."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pmrl_cli.files.formats.arrays import Header, npy_array, read_array
from pmrl_cli.files.formats.contents import Contents, ProbeOptions, Refused, reading
from pmrl_cli.files.formats.layout import Array, Fetch, keyed

__all__ = ["probe"]

_PICKLED = ("pyd", "pickle", "pkl", "pth", "pt")
_MOST_NAMED = 8
_WHOLE = "npy"
"""What the array of ``KEY.npy`` is called."""


def probe(path: Path, options: ProbeOptions) -> Contents:
    """Return the arrays of a tar file, one for each instance; what precedes the first dot of a name is the key.

    Other members (images, captions, JSON) are left alone.

    Raises: DataError if it cannot be read, or is compressed as a whole.
    """
    arrays: list[Array] = []
    places: dict[str, int] = {}
    others: dict[str, None] = {}
    refused: dict[str, Refused] = {}
    with reading(str(path)), path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            folder, slash, name = member.name.rpartition("/")
            key, _, ending = name.partition(".")
            kind = ending.rpartition(".")[2]
            if kind in _PICKLED and member.isfile():
                refused[ending] = _pickled(ending)
            if kind != "npy" or not member.isfile() or member.issparse():
                others[f"*.{ending}"] = None
                continue
            file.seek(member.offset_data)
            header = Header(file)
            array = None if header.dtype.hasobject else npy_array(member.name, header)
            if array is None:
                others[f"{member.name} ({header.native} of shape {header.shape})"] = None
                continue
            if header.start - member.offset_data + header.bytes > member.size:
                message = f"{member.size} bytes in {member.name}, fewer than its header says"
                raise EOFError(message)
            found = f"{folder}{slash}{key}/{ending.removesuffix('npy').rstrip('.') or _WHOLE}"
            arrays.append(Array(found, array.shape, array.dtype, key=f"{folder}{slash}{key}"))
            places[found] = member.offset_data
        file.seek(archive.offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # where tarfile says nothing and stops
            message = f"neither a member nor the end of the archive at byte {archive.offset}"
            raise ValueError(message)
    each = keyed(str(path), arrays, (), lambda: _fetching(path, places), options.pool)
    rest = tuple(f"{one.name} ({one.dtype} of shape {one.shape})" for one in arrays if one.name not in each.names)
    return Contents(
        str(path),
        each.vectors,
        each.columns,
        (*rest[:_MOST_NAMED], *list(others)[:_MOST_NAMED]),
        side=("split",) if each.split else (),
        unpooled=each.unpooled,
        refused=tuple(refused.values()),
    )


def _pickled(ending: str) -> Refused:
    return Refused(
        f"*.{ending}", "pickled Python objects", "arrays", "Write them with WebDataset under a name in .npy."
    )


@contextmanager
def _fetching(path: Path, places: dict[str, int]) -> Iterator[Fetch]:
    with path.open("rb") as file:

        def fetch(name: str) -> npt.NDArray[np.generic]:
            file.seek(places[name])
            values: npt.NDArray[Any] = read_array(file)
            return values

        yield fetch
