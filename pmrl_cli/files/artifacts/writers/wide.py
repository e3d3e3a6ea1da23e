"""One row for each instance, a column for each modality: what Arrow, Lance and wide Parquet hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from pmrl_cli.data.dataset import EmbeddedBlock
from pmrl_cli.files.artifacts.plan import ExportPlan, Output, has
from pmrl_cli.files.artifacts.writer_parts import FUSED
from pmrl_cli.files.artifacts.writers.tables import check_count
from pmrl_cli.files.formats.vector_tables import vector_type

__all__ = ["counted", "wide_batches", "wide_schema"]


def wide_schema(plan: ExportPlan) -> pa.Schema:
    """Return the columns: ``id``, each output (null where an instance lacks it), and the numbers beside them."""
    outputs = plan.outputs()
    fields = [pa.field("id", pa.string(), nullable=False)]
    fields += [pa.field(one.name, vector_type(one.dim, plan.number), nullable=one.source != FUSED) for one in outputs]
    fields += [pa.field(f"{one.name}.{one.number}", pa.int32()) for one in outputs if one.codes is not None]
    return pa.schema(fields)


def wide_batches(blocks: Iterable[EmbeddedBlock], plan: ExportPlan) -> Iterator[pa.RecordBatch]:
    """Yield each block as one record batch."""
    outputs, schema = plan.outputs(), wide_schema(plan)

    def column(output: Output, block: EmbeddedBlock) -> pa.Array:
        values = pa.array(np.ascontiguousarray(output.vectors(block), plan.number).ravel())
        mask = None if output.source == FUSED else pa.array(~has(plan, output, block))
        return pa.FixedSizeListArray.from_arrays(values, type=vector_type(output.dim, plan.number), mask=mask)

    for block in blocks:
        arrays = [block.ids.cast(pa.string()), *(column(one, block) for one in outputs)]
        arrays += [
            pa.array(one.codes(block), mask=~has(plan, one, block)) for one in outputs if one.codes is not None
        ]
        yield pa.record_batch(arrays, schema=schema)


def counted(batches: Iterable[pa.RecordBatch], plan: ExportPlan) -> Iterator[pa.RecordBatch]:
    """Pass batches on; raise ValueError at the end if they hold another number of rows than announced."""
    rows = 0
    for batch in batches:
        rows += batch.num_rows
        yield batch
    check_count("any modality", rows, plan.rows)
