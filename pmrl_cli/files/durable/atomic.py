"""All writing of pmrl: a file or folder under its final name is complete.

What is new is filled inside a working folder beside it (``.NAME.writing``), made durable, and exchanged with what was
there in one step. A failure leaves what was there before; what a killed process left is removed, and if need be put
back, by the next one that writes the same output. Two do not write the same output at once: see ``locks``.
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

from pmrl_cli.errors import Place, ResourceError
from pmrl_cli.files.durable.locks import LOCK, held
from pmrl_cli.files.durable.outputs import check_replaceable

__all__ = ["atomic_file", "atomic_folder", "remove", "to_json"]


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
    """Remove a file or folder; what cannot be removed now is removed by the next writer."""
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
        raise ResourceError(
            what="output cannot be written",
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


def to_json(content: object) -> str:
    """Return JSON with sorted keys and no NaN, ending in a newline."""
    return json.dumps(content, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"
