"""Opening a file of any format: no pickles, a sandbox for libraries that can crash, changes detected."""

from __future__ import annotations

from pathlib import Path

from pmrl_cli.errors import DataError, Place
from pmrl_cli.files.formats import registry, sandbox_client
from pmrl_cli.files.formats.contents import Contents, ProbeOptions, reading, signature
from pmrl_cli.files.formats.pickles import refuse_pickle
from pmrl_cli.files.formats.regular import check_regular
from pmrl_cli.files.formats.store import check_listed
from pmrl_cli.files.formats.unchanging import unchanging

__all__ = ["probe"]


def probe(path: Path, options: ProbeOptions = ProbeOptions(), known: registry.Format | None = None) -> Contents:
    """Return what a file, or a folder of a known format, holds.

    Args:
        path: the file.
        options: what is asked of its format.
        known: its format, where the path does not show it.

    Raises: DataError if it is missing, unreadable or of an unknown kind; PolicyError if its kind refuses it.
    """
    if not path.is_dir():
        check_regular(path)
        refuse_pickle(path)
        check_listed(path)
    found = known or registry.find(path)
    if found is None:
        raise DataError(
            what="unknown kind of file",
            at=Place(str(path)),
            found="a folder of no format that is read whole" if path.is_dir() else f"suffix {path.suffix!r}",
            expected=f"one of {', '.join(registry.suffixes())}",
            next_step="Convert it, or rename it if it is one of these.",
        )
    with reading(str(path)):
        before = signature(path, options.members)
    run = sandbox_client.probe if found.sandboxed else _here
    return unchanging(path, before, run(found, path, options), options.members)


def _here(found: registry.Format, path: Path, options: ProbeOptions) -> Contents:
    return found.probe(path, options)
