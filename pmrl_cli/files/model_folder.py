"""The model folder: what a fit leaves on disk, and how it is read back.

``manifest.json`` is written last and lists the SHA-256 of every other file except ``run.json``, the one file that
differs between two equal fits. Nothing here holds a time, a host or an absolute path but that one.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pmrl_cli.errors import DataError, Place, StateError
from pmrl_cli.files.atomic import MANIFEST, write_json

__all__ = ["FORMAT", "WEIGHTS", "read_model", "sha256_of", "to_csv", "to_toml", "write_model"]

FORMAT = "pmrl.model"
FORMAT_VERSION = 1
RUN = "run.json"
WEIGHTS = "model.safetensors"
TEXTS = ("config.json", "resolved.toml", "metrics.json", "history.csv", "README.md", RUN)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def write_model(folder: Path, *, texts: Mapping[str, str], inputs: Mapping[str, object]) -> None:
    """Write the text files beside the tensors, which are in the folder already; the manifest last.

    Args:
        folder: an empty folder but for the tensors.
        texts: contents by file name.
        inputs: what the fit read, for the manifest.
    """
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    files = {path.name: sha256_of(path) for path in sorted(folder.iterdir()) if path.name != RUN}
    manifest = {"format": FORMAT, "format_version": FORMAT_VERSION, "files": files, "inputs": inputs}
    write_json(folder / MANIFEST, manifest)


def _read_json(path: Path) -> dict[str, Any]:
    what = "not a model"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            what,
            at=Place(str(path)),
            found=error.strerror if isinstance(error, OSError) and error.strerror else str(error),
            expected="a folder written by pmrl fit",
            next_step="Check the path of the model.",
        ) from None
    if not isinstance(content, dict):
        raise DataError(
            what,
            at=Place(str(path)),
            found="no JSON object",
            expected="a folder written by pmrl fit",
            next_step="Check the path of the model.",
        )
    return content


def read_model(folder: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the text files of a model by name and its manifest, every file checked against its digest.

    Raises: DataError if the folder is no model; StateError if it is from a newer pmrl or its bytes have changed.
    """
    manifest = _read_json(folder / MANIFEST)
    if manifest.get("format") != FORMAT:
        what = "not a model"
        raise DataError(
            what,
            at=Place(str(folder)),
            found=f"format {manifest.get('format')!r}",
            expected=FORMAT,
            next_step="Give the folder that pmrl fit printed.",
        )
    if manifest.get("format_version") != FORMAT_VERSION:
        what = "model of another version"
        raise StateError(
            what,
            at=Place(str(folder)),
            found=f"format {manifest.get('format_version')}",
            expected=f"format {FORMAT_VERSION}",
            next_step="Use the pmrl that wrote it, or a newer one.",
        )
    for name, digest in manifest["files"].items():
        path = folder / name
        found = f"SHA-256 {sha256_of(path)[:12]}" if path.is_file() else "no file"
        if found != f"SHA-256 {digest[:12]}":
            what = "model has changed since it was written"
            raise StateError(
                what,
                at=Place(str(path)),
                found=found,
                expected=f"SHA-256 {digest[:12]}",
                next_step="Restore the file, or fit again.",
            )
    texts = {name: (folder / name).read_text(encoding="utf-8") for name in TEXTS if (folder / name).is_file()}
    return texts, manifest
