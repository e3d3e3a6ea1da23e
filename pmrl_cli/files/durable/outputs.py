"""Single files that commands write: what may be replaced, and how they appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from pmrl_cli.errors import Place, ResourceError, UsageError

__all__ = ["check_file"]

_LOOKED_AT = 2**16


def check_file(path: Path, marker: bytes, *, force: bool) -> None:
    """Refuse an output file that stands in for something else, before any work is done.

    Args:
        path: the final file.
        marker: bytes near the start or the end of what pmrl itself writes there; such a file may be replaced.
        force: replace any file.

    Raises: UsageError if ``path`` is no file of ours; ResourceError if no folder can hold it.
    """
    folder = path.absolute().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        what = "output cannot be written"
        raise ResourceError(
            what,
            at=Place(str(path)),
            found=f"{folder} is {'a folder without leave to write' if folder.is_dir() else 'no folder'}",
            expected="a folder one can write in",
            next_step="Choose another path, or make the folder.",
        )
    if not path.exists() and not path.is_symlink():
        return
    if path.is_symlink() or not path.is_file():
        found = "a symbolic link" if path.is_symlink() else "no regular file"
    elif force or marker in _ends(path):
        return
    else:
        found = "a file that pmrl did not write"
    what = "output exists"
    raise UsageError(
        what,
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
