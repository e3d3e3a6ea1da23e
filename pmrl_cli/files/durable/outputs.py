"""What stands where a command is to write: it is replaced only if an earlier run of the command wrote it."""

from __future__ import annotations

import json
import os
from pathlib import Path

from pmrl_cli.errors import Place, ResourceError, UsageError

__all__ = ["MANIFEST", "check_file", "check_replaceable", "format_of"]

MANIFEST = "manifest.json"
"""Name of the file that says of a folder that pmrl wrote it."""

_LOOKED_AT = 2**16


def format_of(path: Path) -> str:
    """Return what the manifest of a folder says it is (``pmrl.model``, ...), or "" if pmrl did not write it."""
    if not (path / MANIFEST).is_file():  # a pipe would be waited for
        return ""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return ""
    found = str(manifest.get("format", "")) if isinstance(manifest, dict) else ""
    if not found.startswith("pmrl."):
        return ""
    return "pmrl.export" if "file_format" in manifest else found  # an export as npy is a store too


def check_replaceable(path: Path, *, kind: str, force: bool) -> None:
    """Refuse an output that exists and is not of its own kind, before any work is done.

    Args:
        path: the final folder.
        kind: ``pmrl.model``, ``pmrl.store`` or ``pmrl.export``: what may be replaced without ``force``; only its own
            kind, for a store may be a model's input.
        force: replace ``path`` whatever it is.

    Raises: UsageError if there is such an output; ResourceError if no folder can hold ``path``.
    """
    if path.is_symlink() or path.name in ("", ".."):
        raise UsageError(
            what="output cannot be replaced",
            at=Place(str(path)),
            found="a symbolic link" if path.is_symlink() else "no name of its own",
            expected="the path of a folder",
            next_step="Write the folder's own path after -o.",
        )
    _check_writable(path)
    found = format_of(path)
    if force or not path.exists() or found == kind:
        return
    if path.is_dir() and not any(path.iterdir()):
        return
    raise UsageError(
        what="output exists",
        at=Place(str(path)),
        found=f"a {found}" if found else "something that pmrl did not write",
        expected=f"a new path or an earlier {kind}",
        next_step="Choose another -o, or replace it with --force.",
    )


def check_file(path: Path, marker: bytes, *, force: bool) -> None:
    """Refuse a file that exists and is no earlier output of its kind, before any work is done.

    Args:
        path: the final file.
        marker: bytes near the start or the end of what pmrl itself writes there; such a file may be replaced.
        force: replace any file.

    Raises: UsageError if ``path`` is no earlier output of pmrl; ResourceError if no folder can hold it.
    """
    _check_writable(path)
    if not path.exists() and not path.is_symlink():
        return
    if path.is_symlink() or not path.is_file():
        found = "a symbolic link" if path.is_symlink() else "no regular file"
    elif force or marker in _ends(path):
        return
    else:
        found = "a file that pmrl did not write"
    raise UsageError(
        what="output exists",
        at=Place(str(path)),
        found=found,
        expected="a new path or an earlier output of this command",
        next_step="Choose another path, or remove that one.",
    )


def _ends(path: Path) -> bytes:
    """Return the first and last 64 kB."""
    with path.open("rb") as file:
        start = file.read(_LOOKED_AT)
        file.seek(0, os.SEEK_END)
        file.seek(max(len(start), file.tell() - _LOOKED_AT))
        return start + file.read()


def _check_writable(path: Path) -> None:
    folder = path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK):
        return
    raise ResourceError(
        what="output cannot be written",
        at=Place(str(path)),
        found=f"{folder} is {'a folder without permission to write' if folder.is_dir() else 'no folder'}",
        expected="a folder one can write in",
        next_step="Choose another path, or change the permissions.",
    )
