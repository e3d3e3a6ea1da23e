"""``pmrl inspect``."""

from __future__ import annotations

from json import dumps
from typing import TYPE_CHECKING, Annotated

import typer

from pmrl_cli.cli.messages import say
from pmrl_cli.cli.options import (
    ConfigFile,
    Files,
    Json,
    NullPaths,
    Quiet,
    expand_files,
    flattened,
    without,
)
from pmrl_cli.cli.table import Column, clipped, screen_width, table
from pmrl_cli.data.read_options import ReadOptions
from pmrl_cli.errors import printable

if TYPE_CHECKING:
    from pmrl_cli.files.join.inspection import Inspection

__all__ = ["command"]

_NAME = 12
_IDS = 16


@flattened
def command(
    files: Files,
    reading: Annotated[ReadOptions, without("max_memory")],
    null: NullPaths = False,
    json: Json = False,
    quiet: Quiet = False,
    config: ConfigFile = None,
) -> None:
    """Show what FILES hold: modalities, rows, ids, overlap, bad rows; and all that is wrong with them.

    Nothing is written. Leaves with 0 if the other commands would take these files, else with the code of the most
    severe problem.

    Example: pmrl inspect features/* --labels labels.csv
    """
    from pmrl_cli.files.join.inspection import inspect_files

    found = inspect_files(expand_files(files, null=null), reading)
    if json:
        content = {
            "schema": "pmrl.inspect/1",
            "modalities": found.modalities,
            "instances": found.instances,
            "join": reading.join,
            "columns": found.columns,
            "notes": found.notes,
            "problems": [problem.as_dict() for problem in found.problems],
        }
        typer.echo(dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False))
    elif found.modalities:
        _show(found, reading.join)
    if not quiet:
        for note in found.notes:
            say(f"note: {note}")
    for problem in found.problems:
        say(f"error: {problem}")
    raise typer.Exit(found.exit_code)


def _ids_of(column: str | None) -> str:
    """Return what the ids are called; pandas writes a nameless index as ``__index_level_0__``."""
    if column is None:
        return "row number"
    return "index" if column == "__index_level_0__" else printable(column)


def _show(found: Inspection, join: str) -> None:
    entries = found.modalities
    ids = [_ids_of(entry["ids"]) for entry in entries]
    names = Column("modality", [entry["modality"] for entry in entries])

    def column(key: str, heading: str, rank: int = 0) -> Column:
        return Column(heading, [_cell(entry[key]) for entry in entries], rank)

    width = screen_width()
    arrays = [names, column("files", "files", 2), *(column(key, key) for key in ("rows", "dim"))]
    arrays += [column("dtype", "dtype", 1), Column("ids", [clipped(name, _IDS) for name in ids], 3)]
    arrays += [column(key, key) for key in ("missing", "bad", "different")]
    overlap = [names, column("rows", "rows"), column("joined", "in all"), column("shared", "in two or more")]
    overlap.append(column("alone", "only here"))
    lines = [*table(arrays, width=width, first=_NAME), "", *table(overlap, width=width, first=_NAME), ""]
    lines.append(f"{join} join: {found.instances:,} instances")
    for entry in entries:
        for template in entry["templates"]:
            rows, first = template["rows"], template["first_row"]
            lines.append(printable(f"{entry['modality']}: {rows:,} rows hold one vector, the first is row {first:,}"))
    if found.columns:
        lines.append(printable(f"side columns: {', '.join(found.columns)}"))
    for line in lines:
        typer.echo(line)


def _cell(value: object) -> str:
    """Return a count with its thousands, a name as it is, "?" where nothing is known."""
    return "?" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
