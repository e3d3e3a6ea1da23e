"""Folders of clip-retrieval: ``img_emb`` and ``text_emb`` in npy shards, ``metadata`` in Parquet, row by row."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pmrl_cli.errors import DataError, Place
from pmrl_cli.files.formats import npy, parquet
from pmrl_cli.files.formats.contents import Column, Contents, ProbeOptions, Vectors, text_column
from pmrl_cli.files.formats.layout import chained, chained_columns
from pmrl_cli.files.formats.names import natural_key

__all__ = ["probe"]

_PARTS = {"img_emb": "image", "text_emb": "text"}
_IDS = ("image_path", "key", "url", "caption_path")


def probe(path: Path, options: ProbeOptions) -> Contents:
    """Return its modalities; ids are the first column of the metadata with one distinct value for each row.

    Without metadata they are the numbers of the shard and of the row in it.

    Raises: DataError if shards differ in width, or from the metadata in rows.
    """
    vectors: list[Vectors] = []
    lengths: dict[str, list[int]] = {}
    for part, modality in _PARTS.items():
        files = _sorted(path / part, "*.npy")
        if not files:
            continue
        shards = [one for file in files for one in npy.probe(file, options).vectors]
        if len(shards) != len(files) or len({one.dim for one in shards}) > 1:
            raise _uneven(path / part, "shards of other shapes", "2-D arrays of one width")
        lengths[part] = [one.rows for one in shards]
        vectors.append(replace(chained(part, shards), file=str(path), modality=modality))
    columns = _metadata(path)
    rows = vectors[0].rows
    sizes = [(one.name, one.rows) for one in vectors] + [(one.name, one.rows) for one in columns]
    if any(size != rows for _, size in sizes):
        found = ", ".join(f"{name} {size}" for name, size in sizes[:4])
        raise _uneven(path, found, "as many rows in each folder")
    ids = next((one for one in _ordered(columns) if _distinct(one)), None)
    if ids is None:
        first = next(iter(lengths.values()))
        ids = text_column("shard and row", [f"{shard}_{row}" for shard, n in enumerate(first) for row in range(n)])
        columns = (*columns, ids)
    side = tuple(one.name for one in columns if one.name != ids.name)
    named = tuple(replace(one, ids=ids.name) for one in vectors)
    return Contents(str(path), named, tuple(columns), side=side)


def _sorted(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.glob(pattern), key=lambda one: natural_key(one.name))


def _metadata(path: Path) -> tuple[Column, ...]:
    parts = [parquet.probe(file, ProbeOptions()) for file in _sorted(path / "metadata", "*.parquet")]
    found = []
    for column in parts[0].columns if parts else ():
        same = [one for part in parts for one in part.columns if one.name == column.name]
        if len(same) == len(parts):
            found.append(chained_columns(column.name, same))
    return tuple(found)


def _ordered(columns: tuple[Column, ...]) -> list[Column]:
    return [one for name in _IDS for one in columns if one.name == name and one.nameable]


def _distinct(column: Column) -> bool:
    values = column.load(text=True)
    return values.null_count == 0 and len(values.unique()) == len(values)


def _uneven(path: Path, found: str, expected: str) -> DataError:
    return DataError(
        what="folders of clip-retrieval differ",
        at=Place(str(path)),
        found=found,
        expected=expected,
        next_step="Run its inference again, or name the folders that belong together one by one.",
    )
