"""What a benchmark of speed gives: rows of one table, every one beside its reference and its floor.

A row holds times of the same work in one process, taken in turn, so that other work on the machine slows all of
them; their ratios are what to read.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

__all__ = ["Call", "Row", "Run", "child_seconds", "cpu_seconds", "in_turn", "row_of", "table", "wall_seconds"]

Call = Callable[[], object]
Timer = Callable[[Call], float]


class Row(NamedTuple):
    """One line of a table.

    Args:
        name: what was done, with its size.
        ours: seconds.
        references: seconds of other ways to do it, by name; a table has a column for each name in its rows.
        floor: seconds that the hardware takes for the least that must be done; None where no floor is known.
        note: what the reader has to know besides.
    """

    name: str
    ours: float
    references: dict[str, float]
    floor: float | None = None
    note: str = ""


def cpu_seconds(call: Call) -> float:
    """Return the CPU seconds this process took for a call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def child_seconds(call: Call) -> float:
    """Return the CPU seconds of the processes that a call started and waited for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    call()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def wall_seconds(call: Call) -> float:
    """Return the seconds a call took: for work that waits, or runs on several threads."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


class Run(NamedTuple):
    """How a group of rows is to be measured.

    Args:
        quick: small sizes and few rounds, to try it out.
        device: ``cpu`` or ``cuda``.
        timer: gives the seconds of a call that computes.
    """

    quick: bool = False
    device: str = "cpu"
    timer: Timer = cpu_seconds

    @property
    def repeats(self) -> int:
        """Rounds of what takes milliseconds."""
        return 5 if self.quick else 21


def in_turn(
    calls: Mapping[str, Call], *, repeats: int, warm: bool = True, timer: Timer = cpu_seconds
) -> dict[str, float]:
    """Return the median seconds of each call, all of them run in turn, ``repeats`` times.

    Args:
        calls: what to time, by name.
        repeats: rounds.
        warm: run each once untimed before it is timed, so that none pays for memory that another gave back.
        timer: gives the seconds of a call.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            if warm:
                call()
            times[name].append(timer(call))
    return {name: statistics.median(series) for name, series in times.items()}


def row_of(name: str, seconds: Mapping[str, float], note: str = "") -> Row:
    """Return the row of what ``in_turn`` found: ``ours``, maybe a ``floor``, and references."""
    references = {key: value for key, value in seconds.items() if key not in ("ours", "floor")}
    return Row(name, seconds["ours"], references, seconds.get("floor"), note)


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
