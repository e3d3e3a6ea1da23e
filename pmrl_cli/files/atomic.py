"""The one door through which pmrl writes: a file or folder under its final name is complete.

A file is written to a temporary name in the same folder, flushed, and renamed over the final name; a folder is
filled under a temporary name beside it and renamed when its manifest is written. A failure removes the temporary
and leaves what was there before.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pmrl_cli.errors import Place, ResourceError, UsageError

__all__ = ["MANIFEST", "atomic_file", "atomic_folder", "check_replaceable", "is_pmrl_folder", "to_json", "write_json"]

MANIFEST = "manifest.json"


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success it takes the final name, on any failure it is gone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def is_pmrl_folder(path: Path) -> bool:
    """Return whether ``path`` is a folder that pmrl wrote (its manifest says so)."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and str(manifest.get("format", "")).startswith("pmrl.")


@contextmanager
def atomic_folder(path: Path, *, force: bool) -> Iterator[Path]:
    """Give a temporary folder beside ``path``; on success it takes the final name, on failure it is gone.

    Args:
        path: the final folder.
        force: replace ``path`` even if pmrl did not write it.

    Raises: UsageError if ``path`` exists, pmrl did not write it and ``force`` is False.
    """
    check_replaceable(path, force=force)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        yield temporary
        for file in sorted(temporary.rglob("*")):
            _sync(file)
        _sync(temporary)
        if path.exists():
            path.rename(old)
        temporary.rename(path)
        _sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if old.is_dir():
            if path.exists():
                shutil.rmtree(old, ignore_errors=True)
            else:
                old.rename(path)
        elif old.exists():
            old.unlink()


def check_replaceable(path: Path, *, force: bool, kind: str | None = None) -> None:
    """Refuse an output that cannot be written, or that exists and is not pmrl's own, before any work is done.

    Args:
        path: the final file or folder.
        force: replace ``path`` whatever it is.
        kind: ``pmrl.model``, ``pmrl.store`` or ``pmrl.export``: replace only an earlier one of these, for a store
            may be the input of a model. None: replace whatever pmrl wrote.

    Raises: UsageError as above; ResourceError if no folder can hold ``path``.
    """
    _check_writable(path)
    if force or not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    ours = _kind(path) if is_pmrl_folder(path) else None
    if ours is not None and kind in (None, ours):
        return
    what = "output exists"
    raise UsageError(
        what,
        at=Place(str(path)),
        found="something that pmrl did not write" if ours is None else f"a {ours}",
        expected=f"a new path or an earlier {kind or 'output of pmrl'}",
        next_step="Choose another -o, or replace it with --force.",
    )


def _kind(folder: Path) -> str:
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    # an export as npy is a store, too
    return "pmrl.export" if "file_format" in manifest else str(manifest["format"])


def _check_writable(path: Path) -> None:
    folder = path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK):
        return
    what = "output cannot be written"
    raise ResourceError(
        what,
        at=Place(str(path)),
        found=f"{folder} is {'a folder without leave to write' if folder.is_dir() else 'no folder'}",
        expected="a folder one can write in",
        next_step="Choose another -o, or change the permissions.",
    )


def to_json(content: object) -> str:
    """Return JSON with sorted keys and no NaN, ending in a newline."""
    return json.dumps(content, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"


def write_json(path: Path, content: object) -> None:
    """Write JSON as ``to_json`` gives it."""
    path.write_text(to_json(content), encoding="utf-8")
