"""What a benchmark of speed gives: rows of one table, every one beside its reference and its floor.

A row holds times of the same work in one process, taken in turn, so that other work on the machine slows all of
them; their ratios are what to read.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

__all__ = ["Row", "in_turn", "table"]


class Row(NamedTuple):
    """One line of a table.

    Args:
        name: what was done, with its size.
        ours: seconds.
        references: seconds of other ways to do it, by name; the rows of one table have the same names.
        floor: seconds that the hardware takes for the least that must be done; None where no floor is known.
        note: what the reader has to know besides.
    """

    name: str
    ours: float
    references: dict[str, float]
    floor: float | None = None
    note: str = ""


def in_turn(
    calls: Mapping[str, Callable[[], object]],
    *,
    repeats: int,
    warm: bool = True,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, float]:
    """Return the median seconds of each call, all of them run in turn, ``repeats`` times.

    Args:
        calls: what to time, by name.
        repeats: rounds.
        warm: run each once untimed before it is timed, so that none pays for memory that another gave back.
        clock: gives seconds: of this process's CPU, or of the wall for work that waits or runs elsewhere.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            if warm:
                call()
            start = clock()
            call()
            times[name].append(clock() - start)
    return {name: statistics.median(series) for name, series in times.items()}


def table(rows: Iterable[Row]) -> str:
    """Return the rows as a Markdown table: times, and how ours stands to each."""
    rows = list(rows)
    names = list(dict.fromkeys(name for row in rows for name in row.references))
    noted = any(row.note for row in rows)
    head = ["", "ours", *names, "floor", *(f"{name} / ours" for name in names), "ours / floor"]
    lines = [[*head, "note"] if noted else head]
    for row in rows:
        others = [row.references.get(name) for name in names]
        cells = [row.name, *map(_time, [row.ours, *others, row.floor])]
        cells += [_ratio(other, row.ours) for other in others]
        cells.append(_ratio(row.ours, row.floor))
        lines.append([*cells, row.note] if noted else cells)
    lines.insert(1, ["---", *["--:"] * (len(head) - 1), *(["---"] if noted else [])])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    scale, unit = (1, "s") if seconds >= 1 else (1e3, "ms") if seconds >= 1e-3 else (1e6, "us")
    return f"{seconds * scale:.3g} {unit}"


def _ratio(first: float | None, second: float | None) -> str:
    return "-" if first is None or not second else f"{first / second:.3g}"
