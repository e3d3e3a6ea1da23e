"""FILES as typed, expanded to the single files they mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pmrl_cli.errors import DataError, Place, PmrlError, UsageError, printable
from pmrl_cli.files.formats import sandbox_client
from pmrl_cli.files.formats.arrays import probe_npy, probe_npz, probe_safetensors
from pmrl_cli.files.formats.contents import Contents, check_regular, reading, signature
from pmrl_cli.files.formats.pickles import refuse_pickle
from pmrl_cli.files.formats.store import EXPORT, STORE, check_listed, check_unread, folder_format, probe_store
from pmrl_cli.files.formats.unchanging import unchanging
from pmrl_cli.files.join.naming import natural_key, unsharded

__all__ = ["Item", "Report", "check_not_input", "expand", "parse_spec", "probe"]

Report = Callable[[PmrlError], None]
"""Takes an error: raises it, or keeps it so that the others are found too."""

_PROBES: dict[str, Callable[[Path], Contents]] = {
    **dict.fromkeys(sandbox_client.KINDS, sandbox_client.probe),
    ".npy": probe_npy,
    ".npz": probe_npz,
    ".safetensors": probe_safetensors,
}


@dataclass(frozen=True)
class Item:
    """One file (or STORE) to read, and what the user said about it.

    Args:
        path: the file.
        name: the modality, where the user or the folder names it.
        dataset: HDF5 dataset, column or member to take.
    """

    path: Path
    name: str | None = None
    dataset: str | None = None


def parse_spec(text: str) -> Item:
    """Read ``path``, ``name=path``, ``path:/dataset`` or ``path#column``; a path that exists is itself first."""
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


def probe(path: Path) -> Contents:
    """Return what a file or STORE holds.

    Raises: DataError if it is missing, unreadable or of an unknown kind; PolicyError if its kind refuses it.
    """
    if path.is_dir():
        return probe_store(path)
    check_regular(path)
    refuse_pickle(path)
    check_listed(path)
    known = _PROBES.get(path.suffix.lower())
    if known is None:
        raise DataError(
            what="unknown kind of file",
            at=Place(str(path)),
            found=f"suffix {path.suffix!r}",
            expected=f"one of {', '.join(_PROBES)}",
            next_step="Convert it, or rename it if it is one of these.",
        )
    with reading(str(path)):
        before = signature(path)
    return unchanging(path, before, known(path))


def expand(files: Sequence[str], report: Report) -> tuple[list[Item], list[str]]:
    """Return the files that FILES mean, and notes on what a folder held besides.

    A plain folder gives its direct files; an export gives the files of its modalities; a STORE stays whole.

    Args:
        files: as typed.
        report: takes the errors of folders that hold nothing.
    """
    items: list[Item] = []
    notes: list[str] = []
    for text in files:
        item = parse_spec(text)
        if not item.path.is_dir():
            items.append(item)
            continue
        try:
            items += _folder(item, notes)
        except PmrlError as error:
            report(error)
    return list(dict.fromkeys(items)), notes


def _folder(item: Item, notes: list[str]) -> list[Item]:
    kind = folder_format(item.path)
    if kind == STORE:
        return [item]
    if kind not in (None, EXPORT):
        raise DataError(
            what="folder holds no features",
            at=Place(str(item.path)),
            found=f"a {kind} folder",
            expected="feature files, a store or an export",
            next_step="Name the features, not the model.",
        )
    direct = _files(item.path)
    found = [Item(file, item.name, item.dataset) for file in direct if file.suffix.lower() in _PROBES]
    if kind == EXPORT:
        # what is fused from the modalities is none itself
        found = [entry for entry in found if unsharded(entry.path.stem) != "fused"]
        folders = sorted(path for path in item.path.iterdir() if path.is_dir() and path.name != "fused")
        found += [
            Item(file, folder.name) for folder in folders for file in _files(folder) if file.suffix.lower() in _PROBES
        ]
        check_unread(item.path, {entry.path for entry in found})
    elif skipped := [file.name for file in direct if file.suffix.lower() not in _PROBES] + _folders(item.path):
        shown = ", ".join(skipped[:5]) + (", …" if len(skipped) > 5 else "")
        notes.append(printable(f"skipped in {item.path.name}: {shown}."))
    if not found:
        raise DataError(
            what="folder holds no feature file",
            at=Place(str(item.path)),
            found="no file of a known kind directly in it",
            expected=f"one of {', '.join(_PROBES)}",
            next_step="Name a folder of feature files.",
        )
    return found


def _folders(folder: Path) -> list[str]:
    return sorted(f"{path.name}/" for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _files(folder: Path) -> list[Path]:
    files = [path for path in folder.iterdir() if not path.is_dir() and not path.name.startswith(".")]
    return sorted(files, key=lambda path: natural_key(path.name))
