"""Whether a path is a file that can be opened: known before any library that reads it is loaded."""

from __future__ import annotations

import stat
from pathlib import Path

from pmrl_cli.errors import DataError, Place

__all__ = ["check_regular", "unreadable"]


def check_regular(path: Path) -> None:
    """Refuse what is not a regular file before it is opened: opening a FIFO would wait for ever.

    Raises: DataError.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise unreadable(str(path), None, error.strerror or "an I/O error") from None
    if not stat.S_ISREG(mode):
        found = "a folder" if stat.S_ISDIR(mode) else "a FIFO, socket or device"
        raise DataError(
            what="not a file",
            at=Place(str(path)),
            found=found,
            expected="a regular file",
            next_step="Name a feature file.",
        )


def unreadable(file: str, dataset: str | None, found: str) -> DataError:
    """Return the error of a file that is damaged or that one may not read."""
    return DataError(
        what="file cannot be read",
        at=Place(file, dataset),
        found=found,
        expected="a whole, readable file of its kind",
        next_step="Check it, or write it again.",
    )
