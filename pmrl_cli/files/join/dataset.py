"""FILES to a ``Dataset``: discovery, join and streaming in one call."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pmrl_cli.data.dataset import Dataset, Features
from pmrl_cli.data.read_options import ReadOptions
from pmrl_cli.errors import PmrlError, ResourceError, raise_all
from pmrl_cli.files.durable.npy import MemoryRows, NpyWriter
from pmrl_cli.files.durable.scratch import available_memory
from pmrl_cli.files.formats.contents import BFLOAT16
from pmrl_cli.files.formats.store import STORE, folder_format, open_store
from pmrl_cli.files.join.discovery import Plan, discover
from pmrl_cli.files.join.fill import JoinedData, element_type, fill_all, join_plan, side_columns
from pmrl_cli.files.join.side_table import read_side_table

__all__ = ["check_disk", "plan_of", "read_dataset"]


def plan_of(files: Sequence[str], options: ReadOptions) -> Plan:
    """Return the plan of FILES that are without fault.

    Raises: the first of their errors, which carries the rest.
    """
    problems: list[PmrlError] = []
    plan = discover(files, problems.append, options)
    if problems:
        raise_all(problems)
    return plan


def read_dataset(
    files: str | PathLike[str] | Sequence[str | PathLike[str]],
    options: ReadOptions | None = None,
    **changed: Any,  # noqa: ANN401 - ReadOptions checks them
) -> Dataset:
    """Read FILES as one data set.

    A single STORE opens by memory map at once, as it was joined when it was written. Anything else is joined and
    streamed into arrays: in memory if they fit ``max_memory``, else in temporary files that are memory-mapped and
    unlinked at once.

    Args:
        files: one, or several in a list: ``path``, ``name=path``, ``path:/dataset``, ``path#column``, folders, stores
            or exports.
        options: how to read them; None for the defaults.
        **changed: fields of ``ReadOptions`` by name, over those of ``options``.

    Raises: DataError, PolicyError, UsageError or StateError for what the files hold; ResourceError if neither
        memory nor disk has room.
    """
    options = replace(options or ReadOptions(), **changed)
    paths = [fspath(file) for file in ([files] if isinstance(files, str | PathLike) else files)]
    if len(paths) == 1 and Path(paths[0]).is_dir() and folder_format(Path(paths[0])) == STORE:
        store = open_store(Path(paths[0]))
        if options.labels is None:
            return store
        columns = side_columns(
            [read_side_table(options.labels, options.id_column, None, options.id_pattern)], store.ids
        )
        return replace(store, columns={**store.columns, **columns})
    plan = plan_of(paths, options)
    joined = join_plan(plan, options)
    shapes = [(element_type(one), joined.stored(m), one.dim) for m, one in enumerate(plan.modalities)]
    needed = sum(kind.itemsize * rows * dim for kind, rows, dim in shapes)
    if needed <= (options.max_memory if options.max_memory is not None else available_memory() // 2):
        rows = [MemoryRows(*shape) for shape in shapes]
        filled = fill_all(plan, joined, rows, options)
        return _dataset(plan, filled, [store.array for store in rows])
    with tempfile.TemporaryDirectory(prefix="pmrl-") as name, ExitStack() as stack:
        folder = Path(name)
        check_disk(folder, needed)
        arrays = [folder / f"{index}.npy" for index in range(len(plan.modalities))]
        writers = [stack.enter_context(NpyWriter(path, *shape)) for path, shape in zip(arrays, shapes, strict=True)]
        filled = fill_all(plan, joined, writers, options)
        return _dataset(plan, filled, [np.load(path, mmap_mode="r", allow_pickle=False) for path in arrays])


def _dataset(plan: Plan, filled: JoinedData, arrays: Sequence[npt.NDArray[np.generic]]) -> Dataset:
    modalities = tuple(
        Features(modality.name, array, modality.dtype == BFLOAT16, digest, source, modality.axes)
        for modality, array, digest, source in zip(
            plan.modalities, arrays, filled.digests, filled.sources, strict=True
        )
    )
    return Dataset(
        filled.ids,
        modalities,
        filled.present,
        filled.columns,
        plan.named_by_row,
        filled.notes,
        named=filled.named,
    )


def check_disk(folder: Path, needed: int) -> None:
    """Refuse to begin what the disk cannot hold.

    Args:
        folder: an existing temporary folder on that disk; the error names the folder it stands in.
        needed: bytes to be written.

    Raises: ResourceError.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ResourceError(
            what="not enough disk",
            found=f"{_size(free)} free in {folder.parent}",
            expected=_size(needed),
            next_step="Free some, choose another place, or raise --max-memory.",
        )


def _size(count: int) -> str:
    """Return bytes as MiB below a GiB, else GiB."""
    return f"{count / 2**20:.1f} MiB" if count < 2**30 else f"{count / 2**30:.1f} GiB"
