"""Tables of plain text that give up columns before they outgrow the screen."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["WIDTH", "Column", "clipped", "screen_width", "table"]

WIDTH = 80
_LEAST = 40


class Column(NamedTuple):
    """One column: its heading, its cells, and how soon it is given up (0: never, then the highest number first)."""

    heading: str
    cells: Sequence[str]
    rank: int = 0


def screen_width() -> int:
    """Return the columns to write in: 80, on a narrower terminal its own."""
    if not sys.stdout.isatty():
        return WIDTH
    return max(_LEAST, min(WIDTH, shutil.get_terminal_size().columns))


def clipped(text: str, limit: int) -> str:
    """Return a text of at most ``limit`` characters, all of them printable."""
    printable = "".join(letter if letter.isprintable() else "?" for letter in text)
    return printable if len(printable) <= limit else f"{printable[: limit - 1]}~"


def table(columns: Sequence[Column], *, width: int, first: int) -> list[str]:
    """Return the lines of a table: the heading and a line for each row.

    Args:
        columns: the first to the left, cut to what is left; the others to the right, as wide as they need.
        width: most characters of a line; columns are given up until they fit.
        first: characters that the first column keeps at least, if it needs them.
    """

    def needed(column: Column) -> int:
        return max(map(len, (column.heading, *column.cells)))

    kept = list(columns)
    first = min(first, needed(kept[0]))
    while first + sum(1 + needed(column) for column in kept[1:]) > width:
        last = max((column.rank, place) for place, column in enumerate(kept) if place)
        if last[0] == 0:
            break
        del kept[last[1]]
    rows = zip(*((column.heading, *column.cells) for column in kept), strict=True)
    sizes = [needed(column) for column in kept[1:]]
    first = max(first, min(needed(kept[0]), width - sum(1 + size for size in sizes)))
    lines = []
    for name, *cells in rows:
        aligned = (cell.rjust(size) for cell, size in zip(cells, sizes, strict=True))
        lines.append(" ".join([clipped(name, first).ljust(first), *aligned]).rstrip())
    return lines
