"""``pmrl ingest``."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import Annotated

import typer

from pmrl_cli.cli.options import (
    ConfigFile,
    FeatureColumn,
    Files,
    Force,
    IdColumn,
    Join,
    JoinOption,
    Json,
    LabelsFile,
    NullPaths,
    OnBad,
    OnBadOption,
    Quiet,
    Verbose,
    expand_files,
    option,
)

__all__ = ["command"]

Store = Annotated[Path, option("-o", "--output", help="The store to write, a folder.", show_default=False)]


def command(
    files: Files,
    output: Store,
    null: NullPaths = False,
    labels: LabelsFile = None,
    id_column: IdColumn = None,
    feature_column: FeatureColumn = None,
    join: JoinOption = Join.outer,
    on_bad: OnBadOption = OnBad.error,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    force: Force = False,
    config: ConfigFile = None,
) -> None:
    """Join and check FILES once, and write a store that the other commands open at once.

    Prints the path of the store. Memory stays small whatever the size: rows are streamed.
    """
    from pmrl_cli.files.artifacts.store import ingest_store

    def progress(modality: str) -> None:
        if verbose and not quiet:
            typer.echo(f"reading {modality}", err=True)

    manifest = ingest_store(
        expand_files(files, null=null),
        output,
        force=force,
        join=join.value,
        on_bad=on_bad.value,
        id_column=id_column,
        feature_column=feature_column,
        labels=labels,
        progress=progress,
    )
    if not quiet:
        for entry in manifest["modalities"]:
            shape = f"{entry['rows']} of {manifest['rows']} instances x {entry['dim']} {entry['dtype']}"
            typer.echo(f"{entry['name']}: {shape}", err=True)
        for note in manifest["notes"]:
            typer.echo(f"note: {note}", err=True)
    if json:
        content = {"schema": "pmrl.ingest/1", "store": str(output), **manifest}
        typer.echo(dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False))
    else:
        typer.echo(str(output))
