"""CSV: a file for each modality, and one for the fused vectors.

The columns are ``id`` and ``d0``, ``d1``, ... for the dimensions; ``--feature-column 'd*'`` reads them back.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import csv

from pmrl_cli.data.dataset import EmbeddedBlock
from pmrl_cli.files.artifacts.plan import ExportPlan, Output
from pmrl_cli.files.artifacts.writers import Written
from pmrl_cli.files.artifacts.writers.tables import modality_rows, write_tables
from pmrl_cli.files.durable.checksums import HashedFile
from pmrl_cli.files.formats.vector_tables import Parts, VectorTable

__all__ = ["write"]


class _CsvFile:
    """Rows as text that reads back as the same float32."""

    def __init__(self, path: Path, dim: int, number: str | None) -> None:
        self.digests: dict[Path, str] = {}
        self._path, self._file = path, HashedFile(path)
        fields = [pa.field("id", pa.string()), *(pa.field(f"d{i}", pa.float32()) for i in range(dim))]
        self._schema = pa.schema(fields + ([] if number is None else [pa.field(number, pa.int32())]))
        self._writer = csv.CSVWriter(self._file, self._schema)

    def write(
        self,
        ids: pa.LargeStringArray,
        vectors: npt.NDArray[np.float32] | npt.NDArray[np.float16],
        codes: npt.NDArray[np.int32] | None = None,
    ) -> None:
        columns = np.ascontiguousarray(vectors.astype(np.float32, copy=False).T)
        arrays = [ids.cast(pa.string()), *map(pa.array, columns)]
        arrays += [] if codes is None else [pa.array(codes)]
        self._writer.write_batch(pa.record_batch(arrays, schema=self._schema))

    def close(self) -> None:
        self._writer.close()
        self._file.close()
        self.digests[self._path] = self._file.hexdigest()


def write(folder: Path, blocks: Iterator[EmbeddedBlock], plan: ExportPlan) -> Written:
    """Write the files; see ``Write``."""

    def open_table(one: Output, parts: Parts) -> VectorTable:
        return _CsvFile(folder / f"{one.name}{plan.suffix}.csv", one.dim, one.numbers)

    return modality_rows(plan), write_tables(blocks, plan, open_table)
