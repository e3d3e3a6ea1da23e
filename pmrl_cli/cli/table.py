"""Tables of plain text that give up columns before they outgrow the screen."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["WIDTH", "Column", "bar", "clipped", "screen_width", "table", "unicode_screen"]

WIDTH = 80
_LEAST, _MOST = 40, 120


class Column(NamedTuple):
    """One column: its heading, its cells, and how soon it is given up (0: never, then the highest number first)."""

    heading: str
    cells: Sequence[str]
    rank: int = 0


def screen_width() -> int:
    """Return the columns to write in: those of the terminal, 120 at most; 80 where there is none."""
    if not sys.stdout.isatty():
        return WIDTH
    return max(_LEAST, min(_MOST, shutil.get_terminal_size().columns))


def unicode_screen() -> bool:
    """Whether block characters can be written."""
    return (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")


def bar(value: float | None, chance: float | None, size: int, *, unicode: bool) -> str:
    """Return a bar from 0 to 1, in which what chance gives and what is beyond it look different.

    Args:
        value: filled up to there.
        chance: filled lightly up to there.
        size: characters.
        unicode: whether block characters can be written.
    """
    if value is None:
        return ""
    light, full, empty = "░█·" if unicode else "=#-"
    filled, expected = (round(size * min(max(end or 0.0, 0.0), 1.0)) for end in (value, chance))
    return (light * min(expected, filled) + full * max(0, filled - expected)).ljust(size, empty)


def clipped(text: str, limit: int) -> str:
    """Return a text of at most ``limit`` characters, all of them printable."""
    printable = "".join(letter if letter.isprintable() else "?" for letter in text)
    return printable if len(printable) <= limit else f"{printable[: limit - 1]}~"


def table(columns: Sequence[Column], *, width: int, first: int) -> list[str]:
    """Return the lines of a table: the heading and a line for each row.

    Args:
        columns: the first to the left, cut to what is left; the others to the right, as wide as they need.
        width: most characters of a line; columns are given up until they fit, and stand two spaces apart if they may.
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
    gap = 2 if needed(kept[0]) + sum(2 + size for size in sizes) <= width else 1
    first = max(first, min(needed(kept[0]), width - sum(gap + size for size in sizes)))
    lines = []
    for name, *cells in rows:
        aligned = (cell.rjust(size) for cell, size in zip(cells, sizes, strict=True))
        lines.append((" " * gap).join([clipped(name, first).ljust(first), *aligned]).rstrip())
    return lines
