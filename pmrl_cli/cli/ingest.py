"""``pmrl ingest``."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import Annotated

import typer

from pmrl_cli.cli.messages import say
from pmrl_cli.cli.options import (
    ConfigFile,
    Files,
    Force,
    Json,
    NullPaths,
    Quiet,
    Verbose,
    expand_files,
    flattened,
    option,
    without,
)
from pmrl_cli.data.read_options import ReadOptions

__all__ = ["command"]

Store = Annotated[Path, option("-o", "--output", help="The store to write, a folder.", show_default=False)]


@flattened
def command(
    files: Files,
    output: Store,
    reading: Annotated[ReadOptions, without("max_memory")],
    null: NullPaths = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    force: Force = False,
    config: ConfigFile = None,
) -> None:
    """Join and check FILES once, and write a store that the other commands open at once.

    Prints the path of the store. Memory stays small whatever the size: rows are streamed.

    Example: pmrl ingest features/*.h5 -o store
    """
    from pmrl_cli.files.artifacts.store import ingest_store

    def progress(modality: str) -> None:
        if verbose and not quiet:
            say(f"reading {modality}")

    manifest = ingest_store(expand_files(files, null=null), output, reading, force=force, progress=progress)
    if not quiet:
        for entry in manifest["modalities"]:
            shape = f"{entry['rows']} of {manifest['rows']} instances x {entry['dim']} {entry['dtype']}"
            say(f"{entry['name']}: {shape}")
        for note in manifest["notes"]:
            say(f"note: {note}")
    if json:
        content = {"schema": "pmrl.ingest/1", "store": str(output), **manifest}
        typer.echo(dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False))
    else:
        typer.echo(str(output))
