"""npy: a store of the modalities, and ``fused.npy`` beside them."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pmrl_cli.data.dataset import EmbeddedBlock
from pmrl_cli.data.ids import digest_ids
from pmrl_cli.files.artifacts.plan import ExportPlan, has
from pmrl_cli.files.artifacts.writer_parts import FUSED
from pmrl_cli.files.artifacts.writers import Written
from pmrl_cli.files.artifacts.writers.tables import Behind, check_count
from pmrl_cli.files.durable.checksums import HashedFile
from pmrl_cli.files.durable.npy import npy_header
from pmrl_cli.files.formats.store import IDS, STORE

__all__ = ["write"]


class _NpyFile(HashedFile):
    """An npy file written from its first row to its last."""

    def __init__(self, path: Path, shape: tuple[int, int], dtype: npt.DTypeLike) -> None:
        super().__init__(path)
        self.path = path
        self._dtype = np.dtype(dtype)
        self.write(npy_header(self._dtype, *shape))

    def write_rows(self, rows: npt.NDArray[np.generic]) -> None:
        """Append rows."""
        self.write(np.ascontiguousarray(rows, self._dtype).reshape(-1).view(np.uint8).data)


class _Ids:
    """The ids of all blocks, in two buffers that grow.

    A list of Arrow arrays would do, but what little each holds lies between the large arrays of its block and the
    next: memory that those give back would stay in pieces too small for others, and an export would grow by its size.
    """

    def __init__(self) -> None:
        self._text = bytearray()
        self._lengths = array("q")

    def add(self, ids: pa.LargeStringArray) -> None:
        """Append (B,) ids."""
        compact = pa.concat_arrays([ids])  # a slice keeps the buffers of the whole
        if len(compact):
            offsets = np.frombuffer(compact.buffers()[1], dtype=np.int64)[: len(compact) + 1]
            self._lengths.frombytes(np.diff(offsets).tobytes())
            self._text += memoryview(compact.buffers()[2])[offsets[0] : offsets[-1]]

    def __len__(self) -> int:
        return len(self._lengths)

    def array(self) -> pa.LargeStringArray:
        """Return all of them."""
        offsets = np.zeros(len(self) + 1, dtype=np.int64)
        np.cumsum(np.array(self._lengths, dtype=np.int64), out=offsets[1:])
        return pa.LargeStringArray.from_buffers(len(self), pa.py_buffer(offsets), pa.py_buffer(self._text))


def write(folder: Path, blocks: Iterator[EmbeddedBlock], plan: ExportPlan) -> Written:
    """Write the store; see ``Write``."""
    ids = _Ids()
    modalities = sorted(plan.listed(), key=lambda one: one.name.encode())
    schema = pa.schema([pa.field("id", pa.string(), nullable=False)])
    with ExitStack() as stack:

        def open_npy(name: str, columns: int, dtype: npt.DTypeLike) -> _NpyFile:
            return stack.enter_context(_NpyFile(folder / f"{name}.npy", (plan.rows, columns), dtype))

        outputs = [*modalities, *(one for one in plan.outputs() if one.source == FUSED)]
        vectors = [open_npy(one.name, one.dim, plan.number) for one in outputs]
        present = open_npy("present", len(modalities), np.bool_)
        coded = [one for one in modalities if one.codes is not None]
        codes = [open_npy(f"{one.name}.{one.number}", 1, np.int32) for one in coded]
        files = [*vectors, present, *codes]
        behind = stack.enter_context(Behind(len(files)))
        for block in blocks:
            masks = np.stack([has(plan, one, block) for one in modalities], axis=1)
            numbers = (np.where(has(plan, one, block), one.codes(block), -1) for one in coded if one.codes)
            rows = [*(one.vectors(block) for one in outputs), masks, *numbers]
            behind.write(partial(file.write_rows, each) for file, each in zip(files, rows, strict=True))
            ids.add(block.ids)
        behind.wait()
        check_count("any modality", len(ids), plan.rows)
    all_ids = ids.array()
    table = pa.table([all_ids.cast(pa.string())], schema=schema)
    with HashedFile(folder / IDS) as file:
        pq.write_table(table, file, compression="none", use_dictionary=False, write_page_checksum=True)
    listed = [
        {
            "digest": file.hexdigest(),
            "dim": one.dim,
            "dtype": plan.dtype,
            "name": one.name,
            "rows": plan.rows,
            **one.besides,
        }
        for one, file in zip(modalities, vectors, strict=False)  # those of the modalities come first
    ]
    described: dict[str, object] = {
        "format": STORE,
        "modalities": listed,
        "ids": {"digest": digest_ids(all_ids), "named_by_row": False},
        "columns": [],
        "notes": [],
    }
    return described, {**{one.path: one.hexdigest() for one in files}, folder / IDS: file.hexdigest()}
