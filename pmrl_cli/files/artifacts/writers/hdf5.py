"""HDF5: a file for each modality, and one for the fused vectors."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pmrl_cli.data.dataset import EmbeddedBlock
from pmrl_cli.files.artifacts.plan import ExportPlan, Output
from pmrl_cli.files.artifacts.writers import Written
from pmrl_cli.files.artifacts.writers.tables import modality_rows, write_tables
from pmrl_cli.files.durable.checksums import sha256_of
from pmrl_cli.files.formats.vector_tables import Hdf5File, Parts, VectorTable

__all__ = ["write"]


def write(folder: Path, blocks: Iterator[EmbeddedBlock], plan: ExportPlan) -> Written:
    """Write the files; see ``Write``. Raises DataError for an id that HDF5 cannot hold."""
    paths = {name: folder / f"{name}{plan.suffix}.h5" for name in plan.tables()}

    def open_table(one: Output, parts: Parts) -> VectorTable:
        return Hdf5File(paths[one.name], parts.rows, one.dim, plan.number, numbers=one.numbers)

    write_tables(blocks, plan, open_table)
    with ThreadPoolExecutor() as pool:
        return modality_rows(plan), dict(zip(paths.values(), pool.map(sha256_of, paths.values()), strict=True))
