"""Names that discovery goes by: what a modality is called, which arrays are features, which columns are ids."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

__all__ = [
    "FEATURE_NAMES",
    "ID_NAMES",
    "array_names",
    "base_name",
    "missing_shards",
    "modality_names",
    "natural_key",
    "never_features",
    "unsharded",
]

FEATURE_NAMES = (
    *("embedding", "embeddings", "emb", "features", "feature", "feats", "feat", "vectors", "vector"),
    *("representation", "representations", "X", "data"),
)
ID_NAMES = (
    *("id", "ids", "_id", "uid", "uuid", "key", "keys", "sample_id", "sample_ids", "item_id", "image_id", "video_id"),
    *("cell_id", "barcode", "obs_names", "_index", "filename", "filenames", "path", "url"),
)

_NEVER = re.compile(r"(x_)?(coords?|coordinates|labels?|targets?|umap|tsne|distances?|(.*_)?index)", re.IGNORECASE)
_OF = re.compile(r"[-_.]?(\d+)-of-(\d+)$")
_NUMBER = re.compile(r"(.+?)[-_.](\d{3,})$")
_SUFFIX = re.compile(
    r"[-_.](train|val|valid|validation|dev|test|features?|feats?|embs?|embeddings?|vectors?|vecs?|representations?)$",
    re.IGNORECASE,
)
_GENERIC = {"part", "shard", *FEATURE_NAMES} - {"X"}


def natural_key(text: str) -> tuple[tuple[str, int], ...]:
    """Return a sort key under which ``part-10`` follows ``part-9``."""
    return tuple((word, int(number or 0)) for word, number in re.findall(r"(\D*)(\d*)", text))


def unsharded(stem: str) -> str:
    """Return a stem without the ``-00000-of-00010`` at its end."""
    return _OF.sub("", stem)


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


def base_name(name: str) -> str:
    """Return the last part of a dataset path; for a run of columns what their names share."""
    last = name.rsplit("/", 1)[-1]
    return re.sub(r"[-_.]?\d+\.\.\S*$", "", last)


def never_features(name: str) -> bool:
    """Return whether an array of this name is taken as features only if the user names it."""
    return _NEVER.fullmatch(base_name(name)) is not None


def modality_names(paths: Sequence[Path]) -> list[str]:
    """Return the modality of each feature file; equal names are shards of one modality.

    The stem loses shard numbers (``-00000-of-00010``; ``_000``, ``_001`` if they count up from 0 or 1), split and
    feature words at its end, and the parts that all names share. A stem that says nothing more (``part``,
    ``features``) gives way to the folder's name.
    """
    stems = [unsharded(path.stem) for path in paths]
    stems = _without_shard_numbers(stems)
    names = []
    for path, stem in zip(paths, stems, strict=True):
        bare = _strip_words(stem)
        generic = bare == "" or bare.lower() in _GENERIC
        names.append(_strip_words(path.resolve().parent.name) if generic else bare)
    return _without_shared_parts(names)


def array_names(names: Sequence[str]) -> list[str]:
    """Return the modality of each array of one file, from dataset paths or column names."""
    paths = [[*name.strip("/").split("/")[:-1], base_name(name) or name] for name in names]
    while len({path[-1] for path in paths}) == 1 and min(len(path) for path in paths) > 1:
        paths = [path[:-1] for path in paths]
    while len({path[0] for path in paths}) == 1 and min(len(path) for path in paths) > 1:
        paths = [path[1:] for path in paths]
    return [_strip_words("_".join(path)) for path in paths]


def _strip_words(stem: str) -> str:
    while (match := _SUFFIX.search(stem)) is not None and match.start() > 0:
        stem = stem[: match.start()]
    return stem


def _without_shard_numbers(stems: Sequence[str]) -> list[str]:
    matches = [_NUMBER.fullmatch(stem) for stem in stems]
    numbers: dict[str, set[int]] = {}
    for match in matches:
        if match is not None:
            numbers.setdefault(match[1], set()).add(int(match[2]))
    # resnet_101 and resnet_152 are two models, not two shards
    counted = {key for key, found in numbers.items() if min(found) <= 1 and max(found) - min(found) == len(found) - 1}
    return [
        stem if match is None or match[1] not in counted else match[1]
        for stem, match in zip(stems, matches, strict=True)
    ]


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
