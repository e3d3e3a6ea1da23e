"""Arrow: one IPC stream of all modalities, which also fits a pipe."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from pmrl_cli.data.dataset import EmbeddedBlock
from pmrl_cli.files.artifacts.plan import ExportPlan
from pmrl_cli.files.artifacts.writers import Written
from pmrl_cli.files.artifacts.writers.tables import modality_rows
from pmrl_cli.files.artifacts.writers.wide import counted, wide_batches, wide_schema
from pmrl_cli.files.durable.checksums import HashedFile

__all__ = ["stream", "write"]


def stream(sink: BinaryIO, blocks: Iterator[EmbeddedBlock], plan: ExportPlan) -> None:
    """Write the stream to a binary file; each block is one record batch, flushed."""
    _write(sink, wide_batches(blocks, plan), plan)


def _write(sink: BinaryIO, batches: Iterable[pa.RecordBatch], plan: ExportPlan) -> None:
    with pa.ipc.new_stream(sink, wide_schema(plan)) as writer:
        for batch in batches:
            writer.write_batch(batch)
            sink.flush()
    sink.flush()


def write(folder: Path, blocks: Iterator[EmbeddedBlock], plan: ExportPlan) -> Written:
    """Write the stream to a file; see ``Write``."""
    path = folder / f"aligned{plan.suffix}.arrows"
    with HashedFile(path) as sink:
        _write(sink, counted(wide_batches(blocks, plan), plan), plan)
    return modality_rows(plan), {path: sink.hexdigest()}
