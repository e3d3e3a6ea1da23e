"""The one door through which pmrl writes: a file or folder under its final name is complete.

What is new is filled inside a working folder beside it (``.NAME.writing``), made durable, and exchanged with what was
there in one step. A failure leaves what was there before; what a killed process left is swept, and if need be put
back, by the next one that writes the same output. Two that write the same output do not meet: see ``locks``.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pmrl_cli.errors import Place, ResourceError, UsageError
from pmrl_cli.files.durable.locks import LOCK, held

__all__ = ["MANIFEST", "atomic_file", "atomic_folder", "check_replaceable", "format_of", "remove", "to_json"]

MANIFEST = "manifest.json"


def _open_to_umask(path: Path) -> None:
    """Give a file the permissions the umask leaves: some libraries write theirs for their owner alone."""
    mask = os.umask(0o077)  # there is no call that only reads it; meanwhile new files are more private, not less
    os.umask(mask)
    path.chmod(0o666 & ~mask)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make(folder: Path) -> None:
    """Make a folder and those above it, each durable in the one it stands in."""
    if not folder.exists():
        _make(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync(folder.parent)


def remove(path: Path) -> None:
    """Remove a file or folder; what cannot be removed now is swept by the next writer."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        try:
            path.unlink(missing_ok=True)
        except OSError:
            return


def _sweep(working: Path) -> None:
    """Remove what is in a working folder but its lock: libraries put files of their own beside those they write."""
    with suppress(OSError):
        for path in list(working.iterdir()):
            if path.name != LOCK:
                remove(path)


@contextmanager
def _working(path: Path) -> Iterator[tuple[Path, Path]]:
    """Hold the working folder of an output and give the two names in it, both free: for the new one and the old one.

    Raises: StateError if another process is writing it; ResourceError for whatever the system refuses.
    """
    working = path.with_name(f".{path.name}.writing")
    new, old = working / "new", working / "old"
    try:
        _make(path.parent)
        with held(working):
            if old.exists() and not path.exists():  # killed between the two renames of ``_publish``
                old.rename(path)
            _sweep(working)
            try:
                yield new, old
            finally:
                _sweep(working)
    except OSError as error:
        what = "output cannot be written"
        raise ResourceError(
            what,
            at=Place(str(path)),
            found=error.strerror or str(error),
            expected="a disk with room and permissions that allow it",
            next_step="What was there before is as it was. Free some room, or choose another place.",
        ) from error


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a temporary path; on success it takes the final name in one step, on any failure it is gone.

    Raises: StateError if another process is writing it; ResourceError if the disk or the permissions do not allow it.
    """
    with _working(path) as (new, old):
        yield new
        _open_to_umask(new)
        _sync(new)
        _publish(new, path, old)


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


@contextmanager
def atomic_folder(path: Path, *, kind: str, force: bool) -> Iterator[Path]:
    """Give an empty folder; on success it takes the final name in one step, on failure it is gone.

    Args:
        path: the final folder.
        kind: as for ``check_replaceable``.
        force: replace ``path`` whatever it is.

    Raises: UsageError if ``path`` exists, is of no such kind and ``force`` is False, or is a link; StateError if
        another process is writing it; ResourceError if the disk or the permissions do not allow it.
    """
    check_replaceable(path, kind=kind, force=force)
    with _working(path) as (new, old):
        new.mkdir()
        yield new
        for file in sorted(new.rglob("*")):
            if file.is_file():
                _open_to_umask(file)
            _sync(file)
        _sync(new)
        check_replaceable(path, kind=kind, force=force)  # again: writing may have taken hours
        _publish(new, path, old)


def _publish(new: Path, path: Path, old: Path) -> None:
    """Give ``new`` the name ``path`` for good, or leave all as it was; ``new`` or ``old`` is what was there."""
    if not path.exists():
        new.rename(path)
    elif not _exchange(new, path):
        path.rename(old)
        try:
            new.rename(path)
        except OSError:
            old.rename(path)
            raise
    try:
        _sync(path.parent)
    except OSError:  # it may not last: back to what does
        if new.exists():
            _exchange(new, path)
        else:
            path.rename(new)
            if old.exists():
                old.rename(path)
        raise


_RENAME_EXCHANGE = 2
_AT_FDCWD = -100
_NO_SUCH_CALL = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where the system or the file system cannot (not Linux, NFS)."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    if call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NO_SUCH_CALL:
        return False
    raise OSError(code, os.strerror(code), str(other))


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
