"""A folder with one file for each instance, named by its id: ``(d,)``, ``(1, d)`` or, pooled, ``(t, d)`` each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pmrl_cli.errors import DataError, Place
from pmrl_cli.files.formats import registry
from pmrl_cli.files.formats.contents import (
    FLOATS,
    Block,
    Contents,
    ProbeOptions,
    Vectors,
    rows_per_block,
    text_column,
    to_float32,
)
from pmrl_cli.files.formats.layout import one_vector
from pmrl_cli.files.formats.names import FEATURE_NAMES, base_name, natural_key, never_features

__all__ = ["array_in", "probe"]


def probe(path: Path, options: ProbeOptions) -> Contents:
    """Return the one array of a folder of files of one instance each; their stems are the ids.

    Raises: DataError if the first file holds no such array.
    """
    names = sorted(options.members or _names(path), key=natural_key)
    first = array_in(path / names[0])
    if first is None:
        raise DataError(
            what="no vector of one instance",
            at=Place(str(path / names[0])),
            found="no single array of floats",
            expected=f"one in each of the {len(names)} files",
            next_step="Name the files of one modality only.",
        )
    length, dim = first.shape if first.ndim == 2 else (1, len(first))
    if length > 1 and options.pool is None:
        phrase = f"{len(names)} files, one per instance ({length} x {dim} in {names[0]})"
        return Contents(str(path), unpooled=(phrase,))
    dtype = first.dtype.name
    step = rows_per_block(dim, first.dtype.itemsize)

    def blocks() -> Iterator[Block]:
        for start in range(0, len(names), step):
            part = names[start : start + step]
            block = np.empty((len(part), dim), dtype=dtype)
            for row, name in enumerate(part):
                values = array_in(path / name)
                place = Place(str(path / name))
                block[row] = one_vector(np.empty(0) if values is None else values, dim, options.pool, place)
            yield block, None

    ids = text_column("file names", _ids(names, path.name))
    vectors = Vectors(str(path), None, len(names), dim, dtype, blocks, ids="file names")
    return Contents(str(path), (vectors,), (ids,))


def _ids(names: Sequence[str], folder: str) -> list[str]:
    """Return the ids of files: the folder of each if it has one of its own, else its stem.

    A word that all stems end in, as in ``v1_rgb`` and ``v2_rgb``, says the modality and no instance; so does the name
    of the folder in front of all of them.
    """
    if all("/" in name for name in names) and len({Path(name).name for name in names}) == 1:
        return [name.rpartition("/")[0] for name in names]
    stems = [Path(name).stem for name in names]
    word = re.search(r"[-_.][A-Za-z]\w*$", stems[0])
    if word is not None and all(stem.endswith(word[0]) and stem != word[0] for stem in stems):
        stems = [stem[: -len(word[0])] for stem in stems]
    for mark in "_-.":
        front = f"{folder}{mark}"
        if all(stem.startswith(front) and stem != front for stem in stems):
            stems = [stem[len(front) :] for stem in stems]
    return stems


def _names(folder: Path) -> list[str]:
    return [
        one.name
        for one in folder.iterdir()
        if one.is_file() and not one.name.startswith(".") and one.suffix.lower() in registry.suffixes(in_folders=True)
    ]


def array_in(path: Path) -> npt.NDArray[Any] | None:
    """Return the one array of a file that holds one instance, (d,) or (t, d); None if it holds something else."""
    form = registry.find(path)
    contents = None if form is None or form.sniff else form.probe(path, ProbeOptions())
    if contents is None:
        return None
    arrays = [one for one in contents.vectors if one.dtype in FLOATS and not never_features(one.name or "")]
    named = [one for one in arrays if base_name(one.name or "") in FEATURE_NAMES]
    arrays = named if len(named) == 1 else arrays
    if len(arrays) == 1:
        blocks = [
            to_float32(b, arrays[0].dtype) if arrays[0].dtype == "bfloat16" else b.copy()
            for b, _ in arrays[0].blocks()
        ]
        return np.concatenate(blocks) if blocks else None
    flat = [one for one in contents.columns if not one.nameable and not never_features(one.name)]
    if arrays or len(flat) != 1 or any(one.nameable for one in contents.columns):
        return None
    values = flat[0].load().to_numpy(zero_copy_only=False)
    return values if values.dtype.kind == "f" and len(values) > 1 else None
