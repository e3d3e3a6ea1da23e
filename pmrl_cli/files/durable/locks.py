"""Working folders that one process at a time may use, and the name of the one that does."""

from __future__ import annotations

import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from pmrl_cli.errors import Place, StateError, UsageError

__all__ = ["LOCK", "held"]

LOCK = "lock"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a working folder, made if it is not there, against every other process; released however we end.

    The kernel drops the lock with the process, so a dead holder holds nothing. A folder left with nothing in it but
    the lock is removed.

    Raises: StateError if another process holds it, naming it; UsageError if the folder is not a working folder.
    """
    with _lock(folder) as lock:
        try:
            lock.truncate(0)
            lock.write(f"{os.getpid()} on {platform.node()}")
            lock.flush()
            yield
        finally:
            with suppress(OSError):  # what stays is an empty working folder, taken over by the next
                if _names(folder) == [LOCK]:
                    (folder / LOCK).unlink()
                    folder.rmdir()


def _names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return []


def _lock(folder: Path) -> TextIO:
    while True:
        names = _names(folder)
        if names and LOCK not in names:
            raise UsageError(
                what="working folder is not pmrl's",
                at=Place(str(folder)),
                found="files that pmrl did not write",
                expected="no folder of that name",
                next_step="Move it away, or choose another -o.",
            )
        with suppress(FileExistsError):
            folder.mkdir(parents=True)
        try:
            lock = (folder / LOCK).open("a+", encoding="utf-8")
        except FileNotFoundError:  # its last holder has just removed it
            continue
        except OSError:
            with suppress(OSError):
                folder.rmdir()  # if it is empty
            raise
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if (folder / LOCK).exists() and os.path.samestat(os.fstat(lock.fileno()), (folder / LOCK).stat()):
                return lock
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            lock.close()
            raise StateError(
                what="output is being written",
                at=Place(str(folder)),
                found=f"a lock held by process {holder}",
                expected="no other process that writes it",
                next_step="Wait for it, or choose another -o.",
            ) from None
        except FileNotFoundError:
            pass
        lock.close()  # the lock of a folder that its last holder has removed
