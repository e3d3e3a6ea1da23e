"""The model folder: what a fit leaves on disk, and how it is read back.

``manifest.json`` is written last and lists the SHA-256 of every other file except ``run.json``, the one file that
differs between two equal fits. Nothing here holds a time, a host or an absolute path but that one.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pmrl_cli.errors import DataError, Place, StateError
from pmrl_cli.files.durable.checksums import (
    FORMAT_VERSION,
    check_bytes,
    check_file,
    check_own_digest,
    digests,
    read_manifest,
    write_with_digest,
)
from pmrl_cli.files.durable.outputs import MANIFEST

__all__ = ["FORMAT", "RUN", "SPLIT", "WEIGHTS", "manifest_of", "read_model", "to_csv", "to_toml", "write_model"]

FORMAT = "pmrl.model"
RUN = "run.json"
SPLIT = "split.csv"
WEIGHTS = "model.safetensors"


def to_toml(values: Mapping[str, object]) -> str:
    """Return flat settings as TOML; None is left out (TOML has no null, and the default is None)."""
    # A JSON scalar or list of scalars is a TOML one too.
    return "".join(
        f"{key} = {json.dumps(value, ensure_ascii=False)}\n"
        for key, value in sorted(values.items())
        if value is not None
    )


def to_csv(history: Sequence[Mapping[str, object]]) -> str:
    """Return rows as CSV with the union of their columns, absent values empty."""
    text = io.StringIO()
    names = list(dict.fromkeys(name for line in history for name in line))
    writer = csv.DictWriter(text, names, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()


def write_model(
    folder: Path, *, texts: Mapping[str, str], inputs: Mapping[str, object], run: Mapping[str, object] | None
) -> None:
    """Write the text files beside the tensors, which are in the folder already; the manifest last.

    Args:
        folder: an empty folder but for the tensors.
        texts: contents by file name.
        inputs: what the fit read, for the manifest.
        run: times, host and versions, for ``run.json``.
    """
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    if run is not None:
        write_with_digest(folder / RUN, run)
    files = digests(folder, without=(MANIFEST, RUN))
    write_with_digest(
        folder / MANIFEST, {"format": FORMAT, "format_version": FORMAT_VERSION, "files": files, "inputs": inputs}
    )


def manifest_of(folder: Path) -> dict[str, Any]:
    """Return the manifest of a model.

    Raises: DataError if the folder is no model; StateError if it is from a newer pmrl.
    """
    manifest = read_manifest(folder)
    if manifest is None or manifest.get("format") != FORMAT or "files" not in manifest:
        raise DataError(
            what="not a model",
            at=Place(str(folder)),
            found=f"no {MANIFEST} of pmrl" if manifest is None else f"a {manifest.get('format')}",
            expected="a folder written by pmrl fit",
            next_step="Give the folder that pmrl fit printed.",
        )
    return manifest


def read_model(folder: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return the files of a model by name and its manifest: all of one model, every byte under its digest.

    ``SPLIT``, which has a line for every instance, is checked and not kept.

    Raises: DataError if the folder is no model; StateError if it is from a newer pmrl or its bytes have changed.
    """
    while True:
        manifest = manifest_of(folder)
        try:
            files = {}
            for name, digest in manifest["files"].items():
                if name == SPLIT:
                    check_file(folder / name, digest)
                else:
                    files[name] = check_bytes(folder / name, digest)
            if (folder / RUN).is_file():
                files[RUN] = (folder / RUN).read_bytes()
                if manifest["format_version"] > 1:
                    check_own_digest(files[RUN], folder / RUN)
        except (StateError, FileNotFoundError):
            if read_manifest(folder) == manifest:  # else a new model has just taken its place
                raise
        else:
            return files, manifest
