"""Ids in a file beside the features: ``ids.npy``, ``file_names.txt``, ``<features>_ids.npy``."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from pmrl_cli.errors import DataError, Place, PmrlError, printable
from pmrl_cli.files.formats.contents import Column, Contents, check_regular, reading, text_column
from pmrl_cli.files.formats.names import plain_name
from pmrl_cli.files.formats.probe import probe

__all__ = ["ids_in", "names_ids", "with_ids_beside"]

_NAMES = (
    "ids",
    "id",
    "keys",
    "key",
    "names",
    "name",
    "file_names",
    "filenames",
    "image_ids",
    "paths",
    "index",
    "items",
)
_SUFFIXES = (".npy", ".txt")
_MOST_BYTES = 2**30


def names_ids(path: Path) -> bool:
    """Return whether a file is called as one that holds ids."""
    stem = path.stem.lower()
    bare = re.sub(r"[-_.]?\d+$", "", stem)
    named = bare in _NAMES or any(bare.endswith(f"_{one}") or bare.startswith(f"{one}_") for one in _NAMES)
    return path.suffix.lower() in _SUFFIXES and named


def ids_in(path: Path) -> Column | None:
    """Return the ids that a file holds, one a row or one a line; None if it holds something else.

    Raises: DataError if it cannot be read.
    """
    check_regular(path)
    if path.suffix.lower() == ".txt":
        with reading(str(path)):
            if path.stat().st_size > _MOST_BYTES:
                return None
            lines = path.read_text(encoding="utf-8").splitlines()
        return text_column(path.name, lines)
    contents = probe(path)
    usable = [column for column in contents.columns if column.nameable]
    return replace(usable[0], name=path.name) if len(usable) == 1 and not contents.vectors else None


def with_ids_beside(path: Path, contents: Contents, given: Path | None) -> tuple[Contents, str | None]:
    """Return the contents of a file without ids with those that lie beside it, and a note of it.

    Taken is a file in the same folder that begins with the name of the features or is called ``ids``, ``names`` and
    the like, and has one distinct value for each row.

    Args:
        path: of the features.
        contents: what it holds.
        given: the file of ``--ids``, None to look for one.

    Raises: DataError if the file given has another number of rows.
    """
    arrays = contents.vectors
    if not arrays or any(one.ids for one in arrays) or len({one.rows for one in arrays}) > 1:
        return contents, None
    if any(column.nameable and column.rows == arrays[0].rows for column in contents.columns):
        return contents, None
    if given is not None:
        column = ids_in(given)
        if column is None or column.rows != arrays[0].rows:
            raise DataError(
                what="ids and rows differ in number",
                at=Place(str(given)),
                found="no ids" if column is None else f"{column.rows} ids",
                expected=f"{arrays[0].rows}, as {contents.file} has rows",
                next_step="Give one id for each row with --ids.",
            )
        return _joined(contents, column), None
    for other in _candidates(path):
        try:
            column = ids_in(other)
            if column is None or column.rows != arrays[0].rows:
                continue
            values = column.load(text=True)
        except PmrlError:
            continue
        if values.null_count == 0 and len(values.unique()) == len(values):
            return _joined(contents, column), printable(f"{path.name}: ids from {other.name}.")
    return contents, None


def _joined(contents: Contents, column: Column) -> Contents:
    vectors = tuple(replace(one, ids=column.name) for one in contents.vectors)
    return replace(contents, vectors=vectors, columns=(*contents.columns, column))


def _candidates(path: Path) -> list[Path]:
    stem = path.stem.lower()
    plain, number = plain_name(stem), re.search(r"[-_.]?\d*$", stem)
    numbered = {f"{name}{number[0]}" for name in _NAMES} if number and number[0] else set()
    try:
        files = sorted(path.parent.iterdir())
    except OSError:
        return []
    others = [one for one in files if one.suffix.lower() in _SUFFIXES and one != path and one.is_file()]
    own = [one for one in others if one.stem.lower().startswith((f"{stem}_", f"{stem}-", f"{stem}."))]
    own += [one for one in others if one.stem.lower() in numbered]  # of the same shard
    called = {f"{plain}{mark}{name}" for mark in "_-." for name in _NAMES}
    called |= {f"{name}{mark}{plain}" for mark in "_-." for name in _NAMES}
    own += [one for one in others if one.stem.lower() in called and one not in own]
    shared = [one for one in others if one.stem.lower() in _NAMES]
    return [*own, *sorted(shared, key=lambda one: _NAMES.index(one.stem.lower()))]
