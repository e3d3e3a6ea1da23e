"""``ingest``: join FILES and write them as a STORE, which opens by memory map."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pmrl_cli.data.ids import digest_ids
from pmrl_cli.data.join import JoinIndex
from pmrl_cli.data.read_options import ReadOptions
from pmrl_cli.errors import DataError, Place, UsageError
from pmrl_cli.files.durable.atomic import atomic_folder
from pmrl_cli.files.durable.checksums import FORMAT_VERSION, digests, write_with_digest
from pmrl_cli.files.durable.npy import NpyWriter
from pmrl_cli.files.durable.outputs import MANIFEST, check_replaceable
from pmrl_cli.files.formats.store import FILE_NAME, IDS, PRESENT, STORE
from pmrl_cli.files.join.dataset import check_disk, plan_of
from pmrl_cli.files.join.discovery import Plan
from pmrl_cli.files.join.fill import JoinedData, element_type, fill_all, join_plan
from pmrl_cli.files.join.items import check_not_input

__all__ = ["ingest_store"]


def ingest_store(
    files: Sequence[str],
    out: Path,
    options: ReadOptions = ReadOptions(),
    *,
    force: bool = False,
    progress: Callable[[str], None] = lambda name: None,
) -> dict[str, Any]:
    """Join FILES and write a STORE.

    Rows are streamed: whatever the size, memory holds the ids and a few blocks.

    Args:
        files: as for ``read_dataset``.
        out: the STORE to write; it appears under its name when it is complete.
        options: how to read them.
        force: replace ``out`` even if pmrl did not write it.
        progress: called with the name of each modality as its turn comes.

    Returns: the manifest as written.

    Raises: as ``read_dataset``; UsageError if ``out`` exists and is not pmrl's, or is one of the inputs; DataError
        for a modality that cannot be a file name.
    """
    check_replaceable(out, kind=STORE, force=force)
    check_not_input(out, files)
    plan = plan_of(files, options)
    _check_names(plan)
    joined = join_plan(plan, options)
    _check_rows(joined)
    needed = len(joined.ids) * sum(modality.dim * element_type(modality).itemsize for modality in plan.modalities)
    with atomic_folder(out, kind=STORE, force=force) as folder:
        check_disk(folder, needed)
        with ExitStack() as stack:
            writers = [
                stack.enter_context(
                    NpyWriter(folder / f"{modality.name}.npy", element_type(modality), len(joined.ids), modality.dim)
                )
                for modality in plan.modalities
            ]
            filled = fill_all(plan, joined, writers, options, progress=progress)
        return _write_beside(folder, plan, filled)


def _check_names(plan: Plan) -> None:
    for modality in plan.modalities:
        if FILE_NAME.fullmatch(modality.name) is None or f"{modality.name}.npy" == PRESENT:
            raise DataError(
                what="modality name cannot be a file name",
                at=Place(modality.shards[0].file, modality.shards[0].name),
                found=repr(modality.name[:80]),
                expected="1 to 64 of A-Z a-z 0-9 . _ -, not first a dot, and not 'present'",
                next_step="Name it with name=path.",
            )


def _check_rows(joined: JoinIndex) -> None:
    if any(source is not None for source in joined.sources):
        raise UsageError(
            what="a store holds a row for each instance",
            found="--on-repeat pair, by which instances share rows",
            expected="--on-repeat mean or first",
            next_step="Use one of those, or give the files and --on-repeat pair to fit, evaluate and diagnose.",
        )


def _write_beside(folder: Path, plan: Plan, filled: JoinedData) -> dict[str, Any]:
    """Write ids, side columns, presence and the manifest beside the rows of a store; return the manifest."""
    table = pa.Table.from_arrays([filled.ids, *filled.columns.values()], ["id", *filled.columns])
    pq.write_table(table, folder / IDS, write_page_checksum=True)
    present = io.BytesIO()  # np.save to a file is silent about last bytes that could not be written
    np.save(present, filled.present, allow_pickle=False)
    (folder / PRESENT).write_bytes(present.getbuffer())
    rows = {f"{modality.name}.npy": d for modality, d in zip(plan.modalities, filled.digests, strict=True)}
    manifest = {**_manifest(plan, filled), "files": digests(folder, known=rows)}
    write_with_digest(folder / MANIFEST, manifest)
    return manifest


def _manifest(plan: Plan, filled: JoinedData) -> dict[str, Any]:
    rows = len(filled.ids)
    return {
        "format": STORE,
        "format_version": FORMAT_VERSION,
        "rows": rows,
        "modalities": [
            {
                "name": modality.name,
                "dtype": modality.dtype,
                "dim": modality.dim,
                "rows": int(count),
                "digest": digest,
                **({"axes": modality.axes} if modality.axes else {}),
            }
            for modality, count, digest in zip(
                plan.modalities, filled.present.sum(axis=0), filled.digests, strict=True
            )
        ],
        "ids": {"digest": digest_ids(filled.ids), "named_by_row": plan.named_by_row},
        "columns": list(filled.columns),
        "notes": list(filled.notes),
    }
