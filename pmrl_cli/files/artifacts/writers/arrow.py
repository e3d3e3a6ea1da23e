"""Arrow: one IPC stream of all modalities, which also fits a pipe."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pmrl_cli.data.dataset import EmbeddedBlock
from pmrl_cli.files.artifacts.plan import ExportPlan
from pmrl_cli.files.artifacts.shares import FUSED
from pmrl_cli.files.artifacts.writers import Written
from pmrl_cli.files.artifacts.writers.tables import check_count, modality_rows
from pmrl_cli.files.durable.checksums import HashedFile
from pmrl_cli.files.formats.vector_tables import vector_type

__all__ = ["stream", "write"]


def stream(sink: BinaryIO, blocks: Iterator[EmbeddedBlock], plan: ExportPlan) -> int:
    """Write the stream to a binary file and return its rows; each block is one record batch, flushed."""
    type_ = vector_type(plan.dim, plan.number)

    def column(vectors: npt.NDArray[np.float32], missing: npt.NDArray[np.bool_] | None) -> pa.Array:
        values = pa.array(np.ascontiguousarray(vectors, plan.number).ravel())
        mask = None if missing is None else pa.array(missing)
        return pa.FixedSizeListArray.from_arrays(values, type=type_, mask=mask)

    fields = [pa.field("id", pa.string(), nullable=False)]
    fields += [pa.field(name, type_) for name in plan.names]
    fields += [pa.field(FUSED, type_, nullable=False)]
    schema = pa.schema(fields)
    rows = 0
    with pa.ipc.new_stream(sink, schema) as writer:
        for block in blocks:
            columns = [column(block.embeddings[:, m], ~block.present[:, m]) for m in range(len(plan.names))]
            arrays = [block.ids.cast(pa.string()), *columns, column(block.fused, None)]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
            sink.flush()
            rows += len(block.ids)
    sink.flush()
    return rows


def write(folder: Path, blocks: Iterator[EmbeddedBlock], plan: ExportPlan) -> Written:
    """Write the stream to a file; see ``Write``."""
    path = folder / f"aligned{plan.suffix}.arrows"
    with HashedFile(path) as sink:
        check_count("any modality", stream(sink, blocks, plan), plan.rows)
    return modality_rows(plan), {path: sink.hexdigest()}
