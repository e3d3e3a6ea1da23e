"""``pmrl export-onnx``: a model as graphs that run without pmrl."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pmrl_cli.cli import options
from pmrl_cli.cli.options import option

__all__ = ["command"]


def command(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model folder that pmrl fit wrote.")],
    output: Annotated[Path, option("-o", "--output", help="Folder to write.", show_default=False)],
    force: options.Force = False,
) -> None:
    """Write a model as ONNX, one graph for each modality, and print the folder.

    Each maps the features of its modality (input 'features', float32, any batch size) to the unit vectors of pmrl
    export (output 'vectors'). Needs the package onnx; running the graphs needs onnxruntime alone.

    Example: pmrl export-onnx runs/a -o graphs
    """
    from pmrl_cli.aligner import Aligner
    from pmrl_cli.files.durable.atomic import atomic_folder
    from pmrl_cli.files.durable.checksums import FORMAT_VERSION, digests, sha256_of, write_with_digest
    from pmrl_cli.files.durable.outputs import MANIFEST

    kind = "pmrl.onnx"
    with atomic_folder(output, kind=kind, force=force) as folder:
        Aligner.load(model, device="cpu").write_onnx(folder)
        manifest = {"format": kind, "format_version": FORMAT_VERSION, "model": sha256_of(model / MANIFEST)}
        write_with_digest(folder / MANIFEST, manifest | {"files": digests(folder, without=(MANIFEST,))})
    typer.echo(str(output))
