"""One path of FILES as it was typed: what it names, and whether it is there; no library is loaded to say so."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pmrl_cli.errors import Place, PmrlError, UsageError, raise_all
from pmrl_cli.files.formats import registry
from pmrl_cli.files.formats.regular import check_regular

__all__ = ["Item", "check_not_input", "check_there", "parse_spec"]


@dataclass(frozen=True)
class Item:
    """One file, or folder that is read as one, and what the user gave with it.

    Args:
        path: the file or folder.
        name: the modality, where the user or the folder names it.
        dataset: HDF5 dataset, column or member to take.
        form: its format, where the path does not show it.
        members: the files of the folder that are meant; none for all.
    """

    path: Path
    name: str | None = None
    dataset: str | None = None
    form: registry.Format | None = None
    members: tuple[str, ...] = ()


def parse_spec(text: str) -> Item:
    """Read ``path``, ``name=path``, ``path:/dataset`` or ``path#column``; a path that exists is itself first.

    Raises: UsageError for an empty path.
    """
    if not text:
        raise UsageError(
            what="empty path",
            found="''",
            expected="a file or a folder",
            next_step="Type . for this folder, or leave it out.",
        )
    if Path(text).exists():
        return Item(Path(text))
    name = None
    match = re.fullmatch(r"([A-Za-z0-9._-]+)=(.+)", text, re.DOTALL)
    if match is not None:
        name, text = match[1], match[2]
    if Path(text).exists():
        return Item(Path(text), name)
    for separator, skipped in ((":/", 1), ("#", 1)):
        at = text.rfind(separator) if separator == "#" else text.find(separator)
        if at > 0 and Path(text[:at]).exists():
            return Item(Path(text[:at]), name, text[at + skipped :])
    return Item(Path(text), name)


def check_not_input(out: Path, files: Sequence[str]) -> None:
    """Refuse an output that would replace what it is made from, forced or not.

    Args:
        out: the file or folder to write.
        files: as typed.

    Raises: UsageError if a path of ``files`` is ``out`` or lies in it.
    """
    for text in files:
        path = parse_spec(text).path.resolve()
        if out.exists() and (path == out.resolve() or out.resolve() in path.parents):
            raise UsageError(
                what="output is an input",
                at=Place(str(out)),
                found="the same path" if path == out.resolve() else f"the folder of {path.name}",
                expected="another one",
                next_step="Choose another -o.",
            )


def check_there(files: Sequence[str]) -> None:
    """Refuse files that are missing or no regular files.

    Args:
        files: as typed.

    Raises: the first of their errors, which carries the rest.
    """
    problems: list[PmrlError] = []
    for text in files:
        try:
            path = parse_spec(text).path
            if not path.is_dir():
                check_regular(path)
        except PmrlError as error:
            problems.append(error)
    if problems:
        raise_all(problems)
