"""Arrow: one IPC stream of all modalities, which also fits a pipe."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from pmrl_cli.data.dataset import EmbeddedBlock
from pmrl_cli.files.artifacts.plan import ExportPlan, Output, has
from pmrl_cli.files.artifacts.shares import FUSED
from pmrl_cli.files.artifacts.writers import Written
from pmrl_cli.files.artifacts.writers.tables import check_count, modality_rows
from pmrl_cli.files.durable.checksums import HashedFile
from pmrl_cli.files.formats.vector_tables import vector_type

__all__ = ["stream", "write"]


def stream(sink: BinaryIO, blocks: Iterator[EmbeddedBlock], plan: ExportPlan) -> int:
    """Write the stream to a binary file and return its rows; each block is one record batch, flushed."""
    outputs = plan.outputs()

    def column(output: Output, block: EmbeddedBlock) -> pa.Array:
        values = pa.array(np.ascontiguousarray(output.vectors(block), plan.number).ravel())
        mask = None if output.source == FUSED else pa.array(~has(plan, output, block))
        return pa.FixedSizeListArray.from_arrays(values, type=vector_type(output.dim, plan.number), mask=mask)

    fields = [pa.field("id", pa.string(), nullable=False)]
    fields += [pa.field(one.name, vector_type(one.dim, plan.number), nullable=one.source != FUSED) for one in outputs]
    fields += [pa.field(f"{one.name}.{one.number}", pa.int32()) for one in outputs if one.codes is not None]
    schema = pa.schema(fields)
    rows = 0
    with pa.ipc.new_stream(sink, schema) as writer:
        for block in blocks:
            arrays = [block.ids.cast(pa.string()), *(column(one, block) for one in outputs)]
            arrays += [
                pa.array(one.codes(block), mask=~has(plan, one, block)) for one in outputs if one.codes is not None
            ]
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
