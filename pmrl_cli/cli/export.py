"""``pmrl export``: aligned and fused embeddings back to disk, or down a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

from pmrl_cli.cli import compute, options
from pmrl_cli.cli.compression import CompressionOptions, compressed_by, compression_of
from pmrl_cli.cli.export_checks import STDOUT, check_alone, check_impute, check_output, format_named, layout_named
from pmrl_cli.cli.messages import say
from pmrl_cli.cli.options import flattened, option, switch, without
from pmrl_cli.data.read_options import ReadOptions
from pmrl_cli.errors import Place, ResourceError
from pmrl_cli.files.artifacts.writers import REGISTRY

if TYPE_CHECKING:
    from pmrl_cli.aligner import Aligner
    from pmrl_cli.data.dataset import Dataset, EmbeddedBlock
    from pmrl_cli.files.artifacts.plan import ExportPlan
    from pmrl_cli.files.artifacts.writer_parts import WriterPart
    from pmrl_cli.process_group import ProcessGroup

__all__ = ["command"]


def _write_together(
    processes: ProcessGroup,
    blocks: Iterator[EmbeddedBlock],
    out: Path,
    plan: ExportPlan,
    *,
    force: bool,
    provenance: Mapping[str, object],
) -> None:
    """Write one export: each process its part files, rank 0 the manifest when all are there."""
    import json

    from pmrl_cli.files.artifacts.export import complete_export, open_export, write_files

    with ExitStack() as stack:
        folder = stack.enter_context(open_export(out, plan.names, force=force)) if processes.rank == 0 else out
        folder = Path(processes.broadcast_json(str(folder.resolve())))
        if not folder.is_dir():
            raise ResourceError(
                what="folder of the export is not there",
                at=Place(str(out)),
                found=f"none that rank {processes.rank} sees",
                expected="a file system that all processes share",
                next_step="Write to one, or give each of your own jobs a --shard I/N.",
            )
        described, files = write_files(blocks, folder, plan)
        lists = processes.gather_bytes(json.dumps(files).encode())
        if processes.rank == 0:
            written = {path: digest for content in lists for path, digest in json.loads(content).items()}
            complete_export(folder, described, written, provenance)


def _shown(blocks: Iterator[EmbeddedBlock], instances: int, *, quiet: bool) -> Iterator[EmbeddedBlock]:
    """Pass blocks on and show, on a terminal, how many of the instances are done."""
    from rich.console import Console
    from rich.progress import Progress

    hidden = quiet or not sys.stderr.isatty()
    with Progress(console=Console(stderr=True), transient=True, disable=hidden) as bar:
        task = bar.add_task("exporting", total=instances)
        for block in blocks:
            yield block
            bar.advance(task, len(block.ids))


def _put_into(
    into: Path,
    paths: list[str],
    model: Path,
    fusion: str,
    reading: ReadOptions,
    computing: compute.ComputeOptions,
    *,
    json: bool,
    quiet: bool,
) -> None:
    """Put the vectors into a file of AnnData or MuData, and print it."""
    from pmrl_cli.aligner import Aligner
    from pmrl_cli.files.artifacts.into import check_into, put_into
    from pmrl_cli.files.durable.atomic import to_json
    from pmrl_cli.files.join.dataset import read_dataset

    check_into(into)
    compute.prepare(computing.threads)
    aligner = Aligner.load(model, device=computing.device)
    dataset = read_dataset(paths, replace(reading, min_modalities=1))
    for sentence in () if quiet else dataset.notes:
        say(f"note: {sentence}")
    blocks = _shown(aligner.embed(dataset, fusion=fusion), len(dataset), quiet=quiet)
    written = put_into(into, blocks, dataset.names, (len(dataset), aligner.dim))
    if json:
        typer.echo(to_json({"schema": "pmrl.export/1", "output": str(into), "written": written}), nl=False)
    else:
        typer.echo(str(into))


@flattened
def command(
    files: options.Files,
    model: Annotated[Path, option("--model", help="Model folder that pmrl fit wrote.", show_default=False)],
    *,
    output: Annotated[str | None, option("-o", "--output", help="Folder, or - for an Arrow IPC stream.")] = None,
    into: Annotated[
        Path | None,
        option("--into", help="Instead of -o: put the vectors into obsm of this .h5ad or .h5mu file, as X_pmrl."),
    ] = None,
    format: Annotated[
        str | None,
        option("--format", help=f"One of {', '.join(REGISTRY)} (default: parquet for a folder, arrow for -)."),
    ] = None,
    layout: Annotated[
        Literal["tables", "wide"] | None,
        option("--layout", help="tables: one for each modality; wide: one row for each instance (parquet has both)."),
    ] = None,
    dtype: Annotated[Literal["float32", "float16"], option("--dtype", help="float32 or float16.")] = "float32",
    rows_per_file: Annotated[
        int | None, option("--rows-per-file", metavar="N", min=1, help="Rows of one Parquet file (default: 262144).")
    ] = None,
    fusion: options.FusionOption = "leading",
    also: Annotated[
        list[str] | None,
        option("--also", metavar="NAME", help="A further output of the model, such as unique; repeatable."),
    ] = None,
    impute: Annotated[
        bool,
        switch("--impute", help="Predict the modalities that instances lack (a model of --objective mvae)."),
    ] = False,
    smaller: CompressionOptions,
    shard: options.Shard = None,
    reading: Annotated[ReadOptions, without("labels", "join")],
    computing: compute.ComputeOptions,
    null: options.NullPaths = False,
    force: options.Force = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    config: options.ConfigFile = None,
) -> None:
    """Write the aligned embeddings of every instance, and one fused vector each, and print the folder.

    Every instance counts, also those with a single modality. The fused vector is the leading direction of an
    instance's modalities, or (--fusion weighted) their mean weighted by their cosine with it.

    With --shard 3/8 the third of eight equal, consecutive shards is written, into a folder of its own: eight calls,
    in any order, write what one call writes without, vector for vector. Part files are numbered through all shards,
    so that the folders can be put together; a shard without instances is an export without rows.

    With --impute every instance has all modalities of the model. imputed says (1) which vectors are of predicted
    features; MODALITY.features has these and those given, in the units of the input, MODALITY.deviation the standard
    deviation of a prediction (0 where given).

    Example: pmrl export features/*.h5 --model runs/a -o aligned
    """
    part = options.parse_shard(shard)
    if impute:
        check_impute(smaller.given() | {"--also": also, "--into": into})
    if into is not None:
        others = {
            "-o": output,
            "--format": format,
            "--layout": layout,
            "--shard": shard,
            "--rows-per-file": rows_per_file,
        }
        check_alone(others | smaller.given())
        paths = options.expand_files(files, null=null)
        options.check_inputs(paths, model)
        _put_into(into, paths, model, fusion, reading, computing, json=json, quiet=quiet)
        return
    streaming = output == STDOUT
    file_format = format_named(format, streaming=streaming)
    tables = layout_named(layout, file_format)
    paths = options.expand_files(files, null=null)
    options.check_inputs(paths, model)
    out = check_output(output, file_format, tables, shard, json=json, force=force)

    from pmrl_cli.aligner import Aligner
    from pmrl_cli.files.artifacts.export import write_export, write_stream
    from pmrl_cli.files.artifacts.plan import Also, ExportPlan
    from pmrl_cli.files.artifacts.writer_parts import ROWS_PER_FILE
    from pmrl_cli.files.durable.checksums import sha256_of
    from pmrl_cli.files.durable.outputs import MANIFEST
    from pmrl_cli.files.join.dataset import read_dataset
    from pmrl_cli.files.join.items import check_not_input
    from pmrl_cli.process_group import process_group

    if not streaming:
        check_not_input(out, paths)
    compute.prepare(computing.threads)
    with process_group() as processes:
        aligner = Aligner.load(model, device=computing.device)
        if smaller.dim is not None:
            aligner = aligner.in_dims(smaller.dim)
        dataset = read_dataset(paths, replace(reading, min_modalities=1))
        part_rows = rows_per_file or ROWS_PER_FILE
        further = aligner.further_outputs(also) if also else {}
        compression = compression_of(smaller, aligner, dataset)
        selection = _selection(aligner, dataset, part, part_rows, processes, impute=impute)
        hidden = quiet or bool(processes.rank)
        for sentence in () if hidden else dataset.notes:
            say(f"note: {sentence}")
        made = (aligner.impute if impute else aligner.embed)(dataset, selection.rows, fusion=fusion)
        blocks = compression.applied(_shown(made, selection.rows.stop - selection.rows.start, quiet=hidden))
        plan = ExportPlan(
            tuple(selection.counts),
            tuple(selection.counts.values()),
            selection.instances,
            compression.dim(aligner.dim),
            format=file_format,
            layout=tables,
            dtype=dtype,
            rows_per_file=part_rows,
            part=selection.part,
            also=tuple(Also(name, *further[name]) for name in also or ()),
            compressed=compressed_by(compression, aligner.dim, writes=processes.rank == 0),
            widths=aligner.widths if impute else (),
        )
        if streaming:
            write_stream(blocks, sys.stdout.buffer, plan)
            return
        provenance = {
            "fusion": fusion,
            "inputs": {features.name: features.digest for features in dataset.modalities},
            "model": sha256_of(model / MANIFEST),
        }
        if processes.size == 1:
            write_export(blocks, out, plan, force=force, provenance=provenance)
        else:
            _write_together(processes, blocks, out, plan, force=force, provenance=provenance)
    if processes.rank == 0:
        _print_result(out, plan, selection, fusion, part, as_json=json)


class _Selection(NamedTuple):
    """Which instances are exported, and what this process writes of them.

    Args:
        counts: instances that have each modality, by name.
        instances: that have any.
        rows: of the data set, which this process embeds.
        part: the part of the export that it writes; None for the whole of one.
    """

    counts: dict[str, int]
    instances: int
    rows: slice
    part: WriterPart | None


def _selection(
    aligner: Aligner,
    dataset: Dataset,
    shard: tuple[int, int] | None,
    part_rows: int,
    processes: ProcessGroup,
    *,
    impute: bool,
) -> _Selection:
    import numpy as np

    from pmrl_cli.data.shards import shard_rows
    from pmrl_cli.files.artifacts.writer_parts import part_of_rank, part_of_shard

    names, present = dataset.names, dataset.present
    if impute:
        names, present = aligner.names, np.repeat(present.any(axis=1, keepdims=True), len(aligner.names), axis=1)
    rows = shard_rows(len(dataset), *(shard or (0, 1)))
    part = part_of_shard(names, present, *shard, part_rows) if shard else None
    counts = dict(zip(names, present[rows].sum(axis=0).tolist(), strict=True))
    instances = int(present[rows].any(axis=1).sum())
    if processes.size > 1:
        rows, part = part_of_rank(names, present, processes.rank, processes.size, part_rows)
    return _Selection(counts, instances, rows, part)


def _print_result(
    out: Path, plan: ExportPlan, selection: _Selection, fusion: str, part: tuple[int, int] | None, *, as_json: bool
) -> None:
    if not as_json:
        typer.echo(str(out))
        return
    from pmrl_cli.files.durable.atomic import to_json

    summary = {
        "schema": "pmrl.export/1",
        "output": str(out),
        "file_format": plan.format,
        "layout": plan.layout,
        "dim": plan.dim,
        "dtype": plan.dtype,
        "fusion": fusion,
        "instances": selection.instances,
        "modalities": selection.counts,
    }
    typer.echo(to_json(summary | ({"shard": {"index": part[0] + 1, "of": part[1]}} if part else {})), nl=False)
