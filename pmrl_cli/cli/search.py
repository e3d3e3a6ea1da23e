"""``pmrl search``: the nearest instances of a gallery for each query."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pmrl_cli.cli import compute, options
from pmrl_cli.cli.messages import say
from pmrl_cli.cli.options import flattened, option, switch, without
from pmrl_cli.data.read_options import ReadOptions

if TYPE_CHECKING:
    import pyarrow as pa

    from pmrl_cli.data.dataset import Dataset
    from pmrl_cli.retrieval.search import SearchResults

__all__ = ["command"]

SHOWN = 20
"""Queries whose nearest a terminal shows; ``--json`` and ``-o`` have all."""


@flattened
def command(
    files: options.Files,
    gallery: Annotated[
        list[str], option("--gallery", help="The candidates, as FILES; repeatable.", show_default=False)
    ],
    *,
    gallery_id_column: Annotated[
        list[str] | None,
        option("--gallery-id-column", help="As --id-column, of the gallery; --id-column is then of the queries."),
    ] = None,
    model: Annotated[
        Path | None, option("--model", help="Model folder that pmrl fit wrote; else all vectors share a space.")
    ] = None,
    source: Annotated[
        str | None, option("--from", help="Modality of the queries (default: all of an instance, fused).")
    ] = None,
    target: Annotated[
        str | None, option("--to", help="Modality that is searched (default: all that an instance has, fused).")
    ] = None,
    count: Annotated[int, option("-k", "--count", metavar="N", min=1, help="How many of the nearest.")] = 10,
    csls: Annotated[
        bool, switch("--csls", help="Subtract how near a candidate is to all queries; prints what that gains.")
    ] = False,
    column: Annotated[
        list[str] | None, option("--column", help="Side column of the gallery to show beside the ids; repeatable.")
    ] = None,
    output: Annotated[
        Path | None, option("-o", "--output", help="Parquet file to write instead of printing.")
    ] = None,
    reading: Annotated[ReadOptions, without("join")],
    computing: compute.ComputeOptions,
    null: options.NullPaths = False,
    force: options.Force = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    config: options.ConfigFile = None,
) -> None:
    """Find the nearest instances of a gallery for each query, exactly.

    FILES are the queries: features and a --model, or vectors of one space as they are, such as what pmrl export
    wrote. Prints the columns query, rank, id and score (the cosine) as a table on a terminal, tab-separated in a
    pipe, as JSON lines with --json, or writes them to a Parquet file with -o. --labels is the side table of the
    gallery.

    Example: pmrl search text=questions.npy --gallery images.h5 --model runs/a --to image -k 5
    """
    paths = options.expand_files(files, null=null)
    options.check_inputs([*paths, *gallery], model)
    from pmrl_cli.files.artifacts.neighbours import NEIGHBOURS, check_columns, write_neighbours
    from pmrl_cli.files.durable.outputs import check_file
    from pmrl_cli.retrieval.search import search

    if output is not None:
        check_file(output, NEIGHBOURS.encode(), force=force)
    if model is None and not quiet:
        say("note: no --model: the vectors of both sides are compared as they are.")
    reading = replace(reading, min_modalities=1)
    asking = _space(paths, replace(reading, labels=None), model, computing, quiet=quiet)
    of_gallery = replace(reading, id_column=tuple(gallery_id_column)) if gallery_id_column else reading
    searched = _space(gallery, of_gallery, model, computing, quiet=quiet)
    check_columns(searched, column or [])
    found = search(asking, searched, count, source=source, target=target, csls=csls)
    if csls and not quiet:
        found = _with_gain(asking, searched, found)
    batches = _batches(asking, searched, found, column or [])
    if output is not None:
        write_neighbours(output, batches)
        typer.echo(str(output))
        return
    show = _print_json if json else _print_table if sys.stdout.isatty() else _print_tabs
    show(batches)


def _space(
    paths: list[str], reading: ReadOptions, model: Path | None, computing: compute.ComputeOptions, *, quiet: bool
) -> Dataset:
    """Read one side and, with a model, embed it."""
    from pmrl_cli.files.join.dataset import read_dataset

    dataset = read_dataset(paths, reading)
    for note in () if quiet else dataset.notes:
        say(f"note: {note}")
    compute.prepare(computing.threads)
    if model is None:
        return dataset
    from pmrl_cli.aligner import Aligner

    return Aligner.load(model, device=computing.device).embed_dataset(dataset, max_memory=reading.max_memory)


def _with_gain(queries: Dataset, gallery: Dataset, found: Iterator[SearchResults]) -> Iterator[SearchResults]:
    """Yield what was found, and say at its end how many queries find their own id first, with CSLS and without."""
    import pyarrow.compute as pc

    asked = before = after = 0
    for part in found:
        own = queries.ids.take(part.queries)
        asked += _count(pc.is_in(own, gallery.ids))
        before += _count(pc.equal(own, gallery.ids.take(part.closest)))
        after += _count(pc.equal(own, gallery.ids.take(part.rows[:, 0])))
        yield part
    if not asked:
        say("note: the gain of --csls cannot be measured: no query's id is in the gallery.")
        return
    gain = f"{after / asked:.3f} find it first with --csls, {before / asked:.3f} without."
    say(f"note: of {asked:,} queries whose id is in the gallery, {gain}")


def _count(true: pa.BooleanArray) -> int:
    return int(true.to_numpy(zero_copy_only=False).sum())


def _batches(
    queries: Dataset, gallery: Dataset, found: Iterator[SearchResults], columns: list[str]
) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    from pmrl_cli.files.artifacts.neighbours import neighbour_rows

    for part in found:
        rows = part.rows.reshape(-1)
        sides = {name: gallery.columns[name].take(rows) for name in columns}
        scores = pa.array(part.scores.reshape(-1))
        yield neighbour_rows(queries.ids.take(part.queries), gallery.ids.take(rows), scores, sides)


def _print_json(batches: Iterator[pa.RecordBatch]) -> None:
    import json

    for batch in batches:
        for row in batch.to_pylist():
            typer.echo(json.dumps({**row, "score": round(row["score"], 6)}, ensure_ascii=False, default=str))


def _print_tabs(batches: Iterator[pa.RecordBatch]) -> None:
    first = next(batches)
    typer.echo("\t".join(first.schema.names))
    for batch in chain([first], batches):
        for row in batch.to_pylist():
            typer.echo("\t".join(_cells(row)))


def _print_table(batches: Iterator[pa.RecordBatch]) -> None:
    from rich.console import Console
    from rich.table import Table

    first = next(batches)
    size = max(first.column("rank").to_pylist())
    shown = first.slice(0, SHOWN * size).to_pylist()
    table = Table(*first.schema.names, box=None, header_style="dim")
    for row in shown:
        table.add_row(*_cells(row if row["rank"] == 1 else {**row, "query": ""}), end_section=row["rank"] == size)
    Console(file=sys.stdout, highlight=False, markup=False, emoji=False).print(table)
    queries = first.num_rows // size + sum(batch.num_rows // size for batch in batches)
    if queries > SHOWN:
        say(f"{SHOWN} of {queries:,} queries; --json or -o FILE.parquet has all.")


def _cells(row: dict[str, object]) -> list[str]:
    return [f"{value:.4f}" if name == "score" else "" if value is None else str(value) for name, value in row.items()]
