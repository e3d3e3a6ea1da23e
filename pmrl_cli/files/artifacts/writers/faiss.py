"""faiss: an index of inner products for each modality and the fused vectors, and the id of each of its rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pmrl_cli.data.dataset import EmbeddedBlock
from pmrl_cli.files.artifacts.plan import ExportPlan, Output
from pmrl_cli.files.artifacts.writers import Written
from pmrl_cli.files.artifacts.writers.tables import modality_rows, write_tables
from pmrl_cli.files.durable.checksums import sha256_of
from pmrl_cli.files.formats.vector_tables import Parts, VectorTable

__all__ = ["write", "write_indices"]


class _Index:
    """``NAME.faiss``, in memory until it is closed, and ``NAME.ids.parquet``: row i is vector i."""

    def __init__(self, path: Path, index: faiss.Index, number: str | None) -> None:
        self.digests: dict[Path, str] = {}
        self._path, self._number = path, number
        self._index = index
        self._ids: list[pa.Array] = [pa.array([], pa.string())]
        self._codes: list[npt.NDArray[np.int32]] = [np.empty(0, np.int32)]

    def write(
        self,
        ids: pa.LargeStringArray,
        vectors: npt.NDArray[np.float32] | npt.NDArray[np.float16],
        codes: npt.NDArray[np.int32] | None = None,
    ) -> None:
        self._index.add(np.ascontiguousarray(vectors, np.float32))
        self._ids.append(ids.cast(pa.string()))
        self._codes += [] if codes is None else [codes]

    def close(self) -> None:
        columns = {"id": pa.concat_arrays(self._ids)}
        if self._number is not None:
            columns[self._number] = pa.array(np.concatenate(self._codes))
        ids = self._path.with_suffix(".ids.parquet")
        faiss.write_index(self._index, str(self._path))
        pq.write_table(pa.table(columns), ids, write_page_checksum=True)
        self.digests = {path: sha256_of(path) for path in (self._path, ids)}


def write_indices(
    made: Callable[[int], faiss.Index], folder: Path, blocks: Iterator[EmbeddedBlock], plan: ExportPlan
) -> Written:
    """Write indices that ``made`` gives for a dimension, empty; see ``Write``."""

    def open_table(one: Output, parts: Parts) -> VectorTable:
        path = folder / f"{one.name}{plan.suffix}.faiss"
        return _Index(path, made(one.dim), one.numbers)

    return modality_rows(plan), write_tables(blocks, plan, open_table)


write = partial(write_indices, faiss.IndexFlatIP)
"""Write indices that are searched whole: exact."""
