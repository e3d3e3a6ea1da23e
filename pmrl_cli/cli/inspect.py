"""``pmrl inspect``."""

from __future__ import annotations

from json import dumps
from typing import TYPE_CHECKING, Annotated

import typer

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
from pmrl_cli.data.read_options import ReadOptions
from pmrl_cli.errors import printable

if TYPE_CHECKING:
    from pmrl_cli.files.join.inspection import Inspection

__all__ = ["command"]

_WIDTH = 80


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
            typer.echo(f"note: {note}", err=True)
    for problem in found.problems:
        typer.echo(f"error: {problem}", err=True)
    raise typer.Exit(found.exit_code)


def _show(found: Inspection, join: str) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    if not console.is_terminal or console.width > _WIDTH:
        console.width = _WIDTH
    arrays = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    overlap = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    arrays.add_column("modality", overflow="fold")
    overlap.add_column("modality", overflow="fold")
    for name in ("files", "rows", "dim", "dtype", "ids", "missing", "bad", "different"):
        arrays.add_column(name, justify="left" if name in ("dtype", "ids") else "right", overflow="fold")
    for name in ("rows", "in all", "in two or more", "only here"):
        overlap.add_column(name, justify="right")
    for entry in found.modalities:
        shown = {**entry, "ids": "row number" if entry["ids"] is None else printable(entry["ids"])}
        keys = ("modality", "files", "rows", "dim", "dtype", "ids", "missing", "bad", "different")
        arrays.add_row(*("?" if shown[key] is None else str(shown[key]) for key in keys))
        overlap.add_row(*(str(entry[key]) for key in ("modality", "rows", "joined", "shared", "alone")))
    console.print(arrays)
    console.print(overlap)
    console.print(f"{join} join: {found.instances} instances")
    for entry in found.modalities:
        for template in entry["templates"]:
            rows, first = template["rows"], template["first_row"]
            console.print(
                printable(f"{entry['modality']}: {rows:,} rows hold one vector, the first is row {first:,}")
            )
    if found.columns:
        console.print(printable(f"side columns: {', '.join(found.columns)}"))
