"""What was probed must be what is read: the same file still, and as many rows as it announced."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pyarrow as pa

from pmrl_cli.errors import DataError, Place, StateError
from pmrl_cli.files.formats.contents import Block, Column, Contents, Vectors, signature
from pmrl_cli.files.formats.regular import unreadable

__all__ = ["unchanging"]


def unchanging(path: Path, before: tuple[int, ...], contents: Contents, members: Sequence[str] = ()) -> Contents:
    """Return the contents of a file whose arrays and columns are refused if it is another file by then.

    Size, time of change and inode are compared before the first value and after the last. A damaged file can also
    hold fewer or more rows than it says.

    Args:
        path: the file.
        before: its ``signature`` before it was opened.
        contents: what it held.
        members: the files of a folder that are meant; none for all.
    """
    check = partial(_check, path, before, members)
    return replace(
        contents,
        vectors=tuple(replace(v, blocks=partial(_blocks, v, check)) for v in contents.vectors),
        columns=tuple(replace(c, load=partial(_load, contents.file, c, check)) for c in contents.columns),
    )


def _check(path: Path, before: tuple[int, ...], members: Sequence[str]) -> None:
    try:
        same = signature(path, members) == before
    except OSError:
        same = False
    if not same:
        raise StateError(
            what="file has changed while it was read",
            at=Place(str(path)),
            found="another size, time or inode than before",
            expected="files that are not written meanwhile",
            next_step="Run it again when they are complete.",
        )


def _blocks(vectors: Vectors, check: Callable[[], None]) -> Iterator[Block]:
    check()
    rows = 0
    try:
        for block, null in vectors.blocks():
            rows += len(block)
            if rows > vectors.rows:
                break
            yield block, null
        _check_rows(vectors.file, vectors.name, rows, vectors.rows)
    except DataError:
        check()  # the likelier cause
        raise
    check()


def _check_rows(file: str, name: str | None, found: int, announced: int) -> None:
    if found != announced:
        some = "more" if found > announced else str(found)
        raise unreadable(file, name, f"{some} rows where {announced} were announced")


def _load(file: str, column: Column, check: Callable[[], None], *, text: bool = False) -> pa.Array:
    check()
    try:
        values = column.load(text=text)
        _check_rows(file, column.name, len(values), column.rows)
    except DataError:
        check()
        raise
    check()
    return values
