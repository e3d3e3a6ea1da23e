"""The one door through which pmrl writes: a file or folder under its final name is complete.

A file is written to a temporary name in the same folder, flushed, and renamed over the final name; a folder is
filled under a temporary name beside it and renamed when its manifest is written. A failure removes the temporary
and leaves what was there before.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pmrl_cli.errors import Place, ResourceError, StateError, UsageError

__all__ = [
    "MANIFEST",
    "atomic_file",
    "atomic_folder",
    "check_replaceable",
    "format_of",
    "held",
    "to_json",
    "write_json",
]

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


def format_of(path: Path) -> str:
    """Return what the manifest of a folder says it is (``pmrl.model``, ...), or "" if pmrl did not write it."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    found = str(manifest.get("format", "")) if isinstance(manifest, dict) else ""
    if not found.startswith("pmrl."):
        return ""
    return "pmrl.export" if "file_format" in manifest else found  # an export as npy is a store too


@contextmanager
def atomic_folder(path: Path, *, kind: str, force: bool) -> Iterator[Path]:
    """Give a temporary folder beside ``path``; on success it takes the final name, on failure it is gone.

    Args:
        path: the final folder.
        kind: as for ``check_replaceable``.
        force: replace ``path`` whatever it is.

    Raises: UsageError if ``path`` exists, is of no such kind and ``force`` is False, or is a link.
    """
    check_replaceable(path, kind=kind, force=force)
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
        if old.exists() and not path.exists():
            old.rename(path)
        elif old.is_dir():
            shutil.rmtree(old)
        else:
            old.unlink(missing_ok=True)


LOCK = "lock"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a working folder, made if it is not there, against every other process; released however we end.

    Raises: StateError if another process holds it, naming it; UsageError if the folder is not a working folder.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / LOCK).exists():
        what = "working folder is not pmrl's"
        raise UsageError(
            what,
            at=Place(str(folder)),
            found="files of somebody else",
            expected="no folder of that name",
            next_step="Move it away, or choose another -o.",
        )
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            what = "output is being written"
            raise StateError(
                what,
                at=Place(str(folder)),
                found=f"a lock held by process {lock.read().strip() or 'unknown'}",
                expected="nobody else at work on it",
                next_step="Wait for it, or choose another -o.",
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def check_replaceable(path: Path, *, kind: str, force: bool) -> None:
    """Refuse an output that exists and is not of its own kind, before any work is done.

    Args:
        path: the final file or folder.
        force: replace ``path`` whatever it is.
        kind: ``pmrl.model``, ``pmrl.store`` or ``pmrl.export``: what may be replaced without ``force``; only its own
            kind, for a store may be a model's input.

    Raises: UsageError as above; ResourceError if no folder can hold ``path``.
    """
    if path.is_symlink() or path.name in ("", ".."):
        what = "output cannot be replaced"
        raise UsageError(
            what,
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
    what = "output exists"
    raise UsageError(
        what,
        at=Place(str(path)),
        found=f"a {found}" if found else "something that pmrl did not write",
        expected=f"a new path or an earlier {kind}",
        next_step="Choose another -o, or replace it with --force.",
    )


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
