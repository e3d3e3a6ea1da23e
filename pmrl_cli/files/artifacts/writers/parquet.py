"""Parquet: a folder of part files for each modality and one for the fused vectors, or one file of all, wide."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pmrl_cli.data.dataset import EmbeddedBlock
from pmrl_cli.files.artifacts.plan import ExportPlan, Output
from pmrl_cli.files.artifacts.writers import Written
from pmrl_cli.files.artifacts.writers.tables import modality_rows, write_tables
from pmrl_cli.files.artifacts.writers.wide import counted, wide_batches, wide_schema
from pmrl_cli.files.durable.checksums import HashedFile
from pmrl_cli.files.formats.vector_tables import ParquetParts, Parts, VectorTable

__all__ = ["write"]

_WIDE_GROUP = 4096
"""Rows of a row group of a wide file, which is held in memory."""


def write(folder: Path, blocks: Iterator[EmbeddedBlock], plan: ExportPlan) -> Written:
    """Write part files, or the wide file; see ``Write``."""
    if plan.layout == "wide":
        return _write_wide(folder / f"aligned{plan.suffix}.parquet", blocks, plan)

    def open_table(one: Output, parts: Parts) -> VectorTable:
        path = folder / one.name
        return ParquetParts(path, parts, one.dim, plan.number, plan.rows_per_file, numbers=one.numbers)

    return modality_rows(plan), write_tables(blocks, plan, open_table)


def _write_wide(path: Path, blocks: Iterator[EmbeddedBlock], plan: ExportPlan) -> Written:
    schema = wide_schema(plan)
    waiting = schema.empty_table()
    with (
        HashedFile(path) as sink,
        pq.ParquetWriter(sink, schema, use_dictionary=False, write_page_checksum=True) as writer,
    ):
        for batch in counted(wide_batches(blocks, plan), plan):
            waiting = pa.concat_tables([waiting, pa.Table.from_batches([batch])])
            while len(waiting) >= _WIDE_GROUP:
                writer.write_table(waiting.slice(0, _WIDE_GROUP), _WIDE_GROUP)
                waiting = waiting.slice(_WIDE_GROUP)
        if len(waiting):
            writer.write_table(waiting, _WIDE_GROUP)
    return modality_rows(plan), {path: sink.hexdigest()}
