"""Files that change while they are read: what was looked at must be what is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pyarrow as pa

from pmrl_cli.errors import DataError, Place, StateError
from pmrl_cli.files.source import Block, Column, Contents, Vectors, signature

__all__ = ["unchanging"]


def unchanging(path: Path, before: tuple[int, int, int], contents: Contents) -> Contents:
    """Return the contents of a file whose arrays and columns are refused if it is another file by then.

    Size, time of change and inode are compared before the first value and after the last.

    Args:
        path: the file.
        before: its ``signature`` before it was opened.
        contents: what it held.
    """
    check = partial(_check, path, before)
    return replace(
        contents,
        vectors=tuple(replace(v, blocks=partial(_blocks, v, check)) for v in contents.vectors),
        columns=tuple(replace(c, load=partial(_load, c, check)) for c in contents.columns),
    )


def _check(path: Path, before: tuple[int, int, int]) -> None:
    try:
        same = signature(path) == before
    except OSError:
        same = False
    if not same:
        raise StateError(
            what="file has changed while it was read",
            at=Place(str(path)),
            found="another size, time or inode than before",
            expected="files that nobody writes meanwhile",
            next_step="Run it again when they are complete.",
        )


def _blocks(vectors: Vectors, check: Callable[[], None]) -> Iterator[Block]:
    check()
    try:
        yield from vectors.blocks()
    except DataError:
        check()  # the likelier cause
        raise
    check()


def _load(column: Column, check: Callable[[], None], *, text: bool = False) -> pa.Array:
    check()
    try:
        values = column.load(text=text)
    except DataError:
        check()
        raise
    check()
    return values
