"""Parquet: a folder of part files for each modality, and one for the fused vectors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pmrl_cli.data.dataset import EmbeddedBlock
from pmrl_cli.files.artifacts.plan import ExportPlan
from pmrl_cli.files.artifacts.writers import Written
from pmrl_cli.files.artifacts.writers.tables import modality_rows, write_tables
from pmrl_cli.files.formats.vector_tables import ParquetParts, Parts, VectorTable

__all__ = ["write"]


def write(folder: Path, blocks: Iterator[EmbeddedBlock], plan: ExportPlan) -> Written:
    """Write part files; see ``Write``."""
    outputs = {output.name: output for output in plan.outputs()}

    def open_table(name: str, parts: Parts) -> VectorTable:
        one = outputs[name]
        numbers = one.number if one.codes else None
        return ParquetParts(folder / name, parts, one.dim, plan.number, plan.rows_per_file, numbers=numbers)

    return modality_rows(plan), write_tables(blocks, plan, open_table)
