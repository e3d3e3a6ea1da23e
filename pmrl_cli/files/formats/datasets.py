"""Folders that Hugging Face ``datasets`` saves: Arrow streams, of one data set or of its splits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pmrl_cli.files.formats.arrow import opened
from pmrl_cli.files.formats.contents import Contents, ProbeOptions, bytes_of, reading
from pmrl_cli.files.formats.names import natural_key
from pmrl_cli.files.formats.tables import Table, contents_of, in_turn

__all__ = ["probe"]


def probe(path: Path, options: ProbeOptions) -> Contents:
    """Return what a saved data set holds; its splits together, with a side column of their names.

    Raises: DataError if it cannot be read.
    """
    with reading(str(path)):
        parts = {"": path} if not (path / "dataset_dict.json").exists() else _splits(path)
        files = {name: _shards(folder) for name, folder in parts.items()}
        if not any(files.values()):
            raise FileNotFoundError(2, "no .arrow file in it", str(path))
        splits: list[str] = []
        if list(files) != [""]:
            for name, shards in files.items():
                for shard in shards:
                    with opened(shard) as table:
                        splits += [name] * table.rows
    everything = [shard for shards in files.values() for shard in shards]
    return contents_of(path, lambda: _opened(everything), options, bytes_of(path), splits)


def _splits(path: Path) -> dict[str, Path]:
    names = json.loads((path / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
    return {str(name): path / Path(str(name)).name for name in names}


def _shards(folder: Path) -> list[Path]:
    state = folder / "state.json"
    if state.is_file():
        listed = json.loads(state.read_text(encoding="utf-8")).get("_data_files", [])
        return [folder / Path(str(one["filename"])).name for one in listed]
    return sorted(folder.glob("*.arrow"), key=lambda one: natural_key(one.name))


@contextmanager
def _opened(files: list[Path]) -> Iterator[Table]:
    with ExitStack() as stack:
        yield in_turn([stack.enter_context(opened(file)) for file in files])
