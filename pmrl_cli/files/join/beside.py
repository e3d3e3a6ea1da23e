"""Ids in a file beside the features: ``ids.npy``, ``file_names.txt``, ``<features>_ids.npy``."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pmrl_cli.errors import DataError, Place, PmrlError, printable
from pmrl_cli.files.formats.contents import Column, Contents, reading, text_column
from pmrl_cli.files.formats.names import plain_name
from pmrl_cli.files.formats.probe import probe
from pmrl_cli.files.formats.regular import check_regular
from pmrl_cli.files.join.choosing import id_columns

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
_LISTS = (".npy", ".txt", ".json")
"""Files of ids and nothing else."""

_TABLES = (".csv", ".tsv", ".parquet")
_TABLE_NAMES = (*_NAMES, "meta", "metadata", "info")
"""What a table is called that holds ids, and more perhaps."""

_MOST_BYTES = 2**30


def names_ids(path: Path) -> bool:
    """Return whether a file is called as one that holds ids."""
    stem = path.stem.lower()
    bare = re.sub(r"[-_.]?\d+$", "", stem)
    named = bare in _NAMES or any(bare.endswith(f"_{one}") or bare.startswith(f"{one}_") for one in _NAMES)
    return path.suffix.lower() in _LISTS and named


def ids_in(path: Path) -> Column | None:
    """Return the ids that a file holds, one a row or one a line; None if it holds something else.

    Raises: DataError if it cannot be read.
    """
    found = _columns_in(path)
    return found[-1] if found else None


def _columns_in(path: Path) -> tuple[Column, ...]:
    """Return the columns of a file that holds ids, those last and called as the file; none if it holds no ids."""
    check_regular(path)
    suffix = path.suffix.lower()
    with reading(str(path)):
        if path.stat().st_size > _MOST_BYTES:
            return ()
        if suffix == ".txt":
            return (text_column(path.name, path.read_text(encoding="utf-8").splitlines()),)
        content = json.loads(path.read_bytes()) if suffix == ".json" else None
    if suffix == ".json":
        listed = isinstance(content, list) and all(isinstance(one, str | int) for one in content)
        return (text_column(path.name, [str(one) for one in content]),) if listed and content else ()
    contents = probe(path)
    nameable = [column for column in contents.columns if column.nameable]
    named = list(id_columns(contents, None, ()).values()) if suffix in _TABLES else []
    chosen = named[0] if named else nameable[0] if len(nameable) == 1 else None
    if chosen is None or contents.vectors:
        return ()
    return (*(one for one in contents.columns if one is not chosen), replace(chosen, name=path.name))


def with_ids_beside(path: Path, contents: Contents, given: Path | None) -> tuple[Contents, str | None]:
    """Return the contents of a file without ids with those that lie beside it, and a note of it.

    Taken is a file in the same folder that begins with the name of the features or is called ``ids``, ``names`` and
    the like, and has one distinct value for each row; what a table holds besides are side columns.

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
        return _joined(contents, (column,)), None
    for other in _candidates(path):
        try:
            columns = _columns_in(other)
            if not columns or columns[-1].rows != arrays[0].rows:
                continue
            values = columns[-1].load(text=True)
        except PmrlError:
            continue
        if values.null_count == 0 and len(values.unique()) == len(values):
            return _joined(contents, columns), printable(f"{path.name}: ids from {other.name}.")
    return contents, None


def _joined(contents: Contents, columns: Sequence[Column]) -> Contents:
    """Return contents with columns that lie beside them: the ids, which are the last, and side columns."""
    vectors = tuple(replace(one, ids=columns[-1].name) for one in contents.vectors)
    side = tuple(one.name for one in columns[:-1])
    return replace(contents, vectors=vectors, columns=(*contents.columns, *columns), side=(*contents.side, *side))


def _candidates(path: Path) -> list[Path]:
    stem = path.stem.lower()
    number = re.search(r"[-_.]?\d*$", stem)
    end = number[0] if number else ""
    stems = {stem, plain_name(stem), plain_name(stem[: len(stem) - len(end)])}
    try:
        files = sorted(path.parent.iterdir())
    except OSError:
        return []
    found: list[Path] = []
    numbered: list[Path] = []
    shared: list[tuple[int, Path]] = []
    for suffixes, names in ((_LISTS, _NAMES), (_TABLES, _TABLE_NAMES)):
        called = {f"{one}{mark}{name}" for one in stems for mark in "_-." for name in names}
        called |= {f"{name}{mark}{one}" for one in stems for mark in "_-." for name in names}
        called |= {f"{one}{end}" for one in called}  # of the same shard
        called |= {stem} if suffixes == _TABLES else set()
        begun = tuple(f"{stem}{mark}" for mark in "_-.") if suffixes == _LISTS else ()
        for other in files:
            its = other.stem.lower()
            if other.suffix.lower() not in suffixes or other == path:
                continue
            if its in called or its.startswith(begun):
                found.append(other)
            elif end and its.endswith(end) and its[: len(its) - len(end)] in names:
                numbered.append(other)
            elif its in names:
                shared.append((names.index(its), other))
    ordered = [*found, *numbered, *(other for _, other in sorted(shared))]
    return [one for one in ordered if one.is_file()]
