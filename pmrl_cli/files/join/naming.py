"""Names that discovery goes by: what a modality is called, which arrays are features, which columns are ids."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from pmrl_cli.files.formats.layout import split_word
from pmrl_cli.files.formats.names import FEATURE_NAMES, SPLIT_NAMES, base_name, plain_name

__all__ = [
    "array_names",
    "missing_shards",
    "modality_names",
    "own_names",
    "split_of",
    "unsharded",
]

_NAMED = 8
"""Files that an error names one by one."""

_OF = re.compile(r"[-_.]?(\d+)-of-(\d+)$")
_WRITTEN = re.compile(r"(?:[-_.][0-9a-f]{8,}(?:-[0-9a-f]{4,})*)?(?:[-_.]c\d{3})?(?:\.(?:snappy|gz|zstd|lz4))?$")
"""What engines put behind the number of a part: a hash or UUID, ``c000``, the compression."""

_NUMBER = re.compile(r"(?:(.*?)[-_.]|(part|shard|batch|chunk|))(\d+)", re.IGNORECASE)
_GENERIC = {"part", "shard", "batch", "chunk", *FEATURE_NAMES, *SPLIT_NAMES} - {"X"}


def unsharded(stem: str) -> str:
    """Return a stem without the ``-00000-of-00010`` at its end, and what engines write behind it."""
    return _OF.sub("", _bare(stem))


def _bare(stem: str) -> str:
    bare = _WRITTEN.sub("", stem)
    return bare if re.search(r"\d", bare) else stem  # a stem that is a hash alone stays


def split_of(path: Path) -> str | None:
    """Return the part of a data set that a file holds, by its name or its folder's: train, validation or test."""
    words = [word.lower() for word in re.split(r"[-_.]", unsharded(path.stem))]
    folder = path.resolve().parent
    around = (folder.name.lower(), folder.parent.name.lower())
    found = [word for word in (words[-1], words[0], *around) if word in SPLIT_NAMES]
    return split_word(found[0]) if found else None


def missing_shards(stems: Sequence[str]) -> list[str]:
    """Return the numbers that are missing among stems such as ``part-00002-of-00008``, as ``00001-of-00008``."""
    found: dict[int, dict[int, str]] = {}
    for stem in stems:
        match = _OF.search(stem)
        if match is not None:
            found.setdefault(int(match[2]), {})[int(match[1])] = match[0].lstrip("-_.")
    missing = []
    for total, numbers in found.items():
        first = 1 if total in numbers else 0  # some count from 1
        width = min(len(text.split("-")[0]) for text in numbers.values())
        of = next(iter(numbers.values())).split("-of-")[1]
        missing += [f"{n:0{width}d}-of-{of}" for n in range(first, first + total) if n not in numbers]
    return missing


def own_names(files: Sequence[str]) -> str:
    """Return files as they are typed as modalities of their own, ``a=a.npy b=b.npy``.

    Empty for one file, more than ``_NAMED``, or names that cannot stand before ``=``.
    """
    stems = [Path(file).stem for file in files]
    if not 1 < len(set(stems)) == len(files) <= _NAMED:
        return ""
    if not all(re.fullmatch(r"[A-Za-z0-9._-]+", stem) for stem in stems):
        return ""
    return " ".join(shlex.quote(f"{stem}={file}") for stem, file in zip(stems, files, strict=True))


def modality_names(paths: Sequence[Path], dims: Sequence[int] | None = None) -> list[str]:
    """Return the modality of each feature file; equal names are shards of one modality.

    The stem loses shard numbers (``-00000-of-00010``; ``_0``, ``_1`` if they count up from 0 or 1 in one folder and
    are of one width), split and feature words at its end, and the parts that all names share. A stem that says
    nothing more (``part``, ``features``) gives way to the folder's name; so do equal names in two folders, unless
    those are the parts of a split.

    Args:
        paths: the files.
        dims: columns of each; None if all are alike.
    """
    stems = _without_shard_numbers(paths, dims or [0] * len(paths))
    names = []
    for path, stem in zip(paths, stems, strict=True):
        bare = plain_name(stem)
        generic = bare == "" or bare.lower() in _GENERIC
        folder = _home(path)
        if generic and folder.name.lower() in SPLIT_NAMES:
            folder = folder.parent
        names.append(plain_name(folder.name) if generic else bare)
    return _without_shared_parts(_by_folder(paths, names))


def _home(path: Path) -> Path:
    """Return the folder of a file, or that around ones such as ``year=2024``, which are partitions of one table."""
    folder = path.resolve().parent
    while "=" in folder.name:
        folder = folder.parent
    return folder


def _by_folder(paths: Sequence[Path], names: Sequence[str]) -> list[str]:
    folders = [_home(path) for path in paths]
    homes: dict[str, set[Path]] = {}
    for folder, name in zip(folders, names, strict=True):
        homes.setdefault(name, set()).add(folder)
    apart = {
        name
        for name, found in homes.items()
        if len(found) > 1 and not all(one.name.lower() in SPLIT_NAMES or one.name == name for one in found)
    }
    inside: dict[Path, set[str]] = {}
    for folder, name in zip(folders, names, strict=True):
        inside.setdefault(folder, set()).add(name)
    return [
        name if name not in apart else folder.name if len(inside[folder]) == 1 else f"{folder.name}_{name}"
        for folder, name in zip(folders, names, strict=True)
    ]


def array_names(names: Sequence[str]) -> list[str]:
    """Return the modality of each array of one file, from dataset paths or column names."""
    paths = [[*name.strip("/").split("/")[:-1], base_name(name) or name] for name in names]
    while len({path[-1] for path in paths}) == 1 and min(len(path) for path in paths) > 1:
        paths = [path[:-1] for path in paths]
    while len({path[0] for path in paths}) == 1 and min(len(path) for path in paths) > 1:
        paths = [path[1:] for path in paths]
    return [plain_name("_".join(path)) for path in paths]


def _without_shard_numbers(paths: Sequence[Path], dims: Sequence[int]) -> list[str]:
    bare = [_bare(path.stem) for path in paths]
    stems = [_OF.sub("", stem) for stem in bare]
    parts = [_counted(stem) for stem in stems]
    runs: dict[tuple[Path, str], list[tuple[str, int]]] = {}
    for path, part, dim in zip(paths, parts, dims, strict=True):
        if part is not None:
            runs.setdefault((path.resolve().parent, part[0]), []).append((part[1], dim))
    counted = {key for key, found in runs.items() if _is_run(found)}
    return [
        stem if part is None or (path.resolve().parent, part[0]) not in counted else part[0]
        for path, stem, part in zip(paths, stems, parts, strict=True)
    ]


def _counted(stem: str) -> tuple[str, str] | None:
    """Return what stands before the number of a shard, and the number as written."""
    match = _NUMBER.fullmatch(stem)
    return None if match is None else (match[1] or match[2] or "", match[3])


def _is_run(found: Sequence[tuple[str, int]]) -> bool:
    """Return whether numbers count up from 0 or 1; short ones only if several files are of one width.

    resnet_101 and resnet_152 are two models, not two shards; nor are layers of two widths.
    """
    numbers = [int(number) for number, _ in found]
    long = all(len(number) >= 3 for number, _ in found)
    alike = len(found) > 1 and len({dim for _, dim in found}) == 1
    counts = min(numbers) <= 1 and max(numbers) - min(numbers) == len(set(numbers)) - 1 == len(numbers) - 1
    return counts and (long or alike)


def _without_shared_parts(names: Sequence[str]) -> list[str]:
    if len(set(names)) < 2:
        return list(names)
    parts = [re.findall(r"[-_.]*[^-_.]+[-_.]*", name) or [name] for name in names]
    spare = min(len(part) for part in parts) - 1
    front = 0
    while front < spare and len({part[front].strip("-_.") for part in parts}) == 1:
        front += 1
    back = 0
    while front + back < spare and len({part[-1 - back].strip("-_.") for part in parts}) == 1:
        back += 1
    short = ["".join(part[front : len(part) - back]).strip("-_.") for part in parts]
    return short if len(set(short)) == len(set(names)) else list(names)  # a-b and a_b stay two
