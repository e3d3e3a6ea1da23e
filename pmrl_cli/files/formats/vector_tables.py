"""The vectors of one modality on their way to disk, appended block by block: Parquet parts or an HDF5 file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import h5py
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pmrl_cli.errors import DataError, Place
from pmrl_cli.files.durable.checksums import HashedFile

__all__ = ["Hdf5File", "ParquetParts", "Parts", "VectorTable", "vector_type"]

_GROUP_ROWS = 8192
"""Rows of one Parquet row group: a random batch reads little, and a group of 512 float32 (16 MiB) fits in cache."""

_CHUNK_BYTES = 2**20
"""Bytes of one HDF5 chunk: with each its checksum."""

Vectors = npt.NDArray[np.float32] | npt.NDArray[np.float16]
Codes = npt.NDArray[np.int32]


def vector_type(dim: int, dtype: np.dtype[np.floating]) -> pa.DataType:
    """Return the Arrow type of a vector; its elements are never null, which makes them faster to read."""
    return pa.list_(pa.field("element", pa.from_numpy_dtype(dtype), nullable=False), dim)


class Parts(NamedTuple):
    """The part files of one table that one writer writes, and where their rows lie in the blocks it is given.

    Args:
        first: number of the first, from 0 on.
        stop: number after that of the last.
        of: part files of the whole table.
        skip: rows of the incoming blocks to leave out first.
        rows: rows to be written.
        held: rows of the table in all the blocks.
    """

    first: int
    stop: int
    of: int
    skip: int
    rows: int
    held: int


class VectorTable(Protocol):
    """Ids and vectors of one modality; a context manager is made of it by ``contextlib.closing``.

    ``digests`` is the SHA-256 (hex) of each file that was hashed as it was written.
    """

    digests: dict[Path, str]

    def write(self, ids: pa.LargeStringArray, vectors: Vectors, codes: Codes | None = None) -> None:
        """Append (B,) ids, (B, d) vectors of the table's dtype, C order, and (B,) codes if it has them."""

    def close(self) -> None:
        """Write what is held back, and close."""


class ParquetParts:
    """``part-00000-of-0000N.parquet`` with columns ``id`` and ``embedding``, in row groups of equal size.

    Args:
        folder: made here, if it is not there.
        parts: which of them are written.
        dim: columns of a vector.
        dtype: float32 or float16.
        rows_per_file: rows of each part but the last.
        numbers: name of a column of whole numbers, such as ``code``; None without.
    """

    def __init__(
        self,
        folder: Path,
        parts: Parts,
        dim: int,
        dtype: np.dtype[np.floating],
        rows_per_file: int,
        *,
        numbers: str | None = None,
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.digests: dict[Path, str] = {}
        self._folder = folder
        self._parts = parts
        self._rows_per_file = rows_per_file
        fields = [
            pa.field("id", pa.string(), nullable=False),
            pa.field("embedding", vector_type(dim, dtype), nullable=False),
        ]
        self._schema = pa.schema([*fields, *([pa.field(numbers, pa.int32(), nullable=False)] if numbers else [])])
        self._group: list[pa.RecordBatch] = []
        self._writer: Any = None  # of Parquet, while a part is open
        self._part = parts.first
        if parts.stop > parts.first:
            self._open()

    def _open(self) -> None:
        self._path = self._folder / f"part-{self._part:05d}-of-{self._parts.of:05d}.parquet"
        self._file = HashedFile(self._path)
        self._writer = pq.ParquetWriter(
            self._file,
            self._schema,
            compression="none",  # embeddings do not compress, and this is the fastest to read
            use_dictionary=False,
            write_statistics=["id"],
            write_page_checksum=True,
        )
        self._part_room = self._rows_per_file
        self._group_room = min(_GROUP_ROWS, self._part_room)

    def _close(self) -> None:
        # Let go of first: what fails as it is closed is not closed again, which would hide why.
        writer, self._writer = self._writer, None
        with self._file:
            writer.close()
        self.digests[self._path] = self._file.hexdigest()

    def _flush(self) -> None:
        # One chunk, for page boundaries follow chunks and chunks follow blocks.
        group = pa.Table.from_batches(self._group, self._schema).combine_chunks()
        self._writer.write_table(group, row_group_size=_GROUP_ROWS)
        self._part_room -= len(group)
        self._group_room = min(_GROUP_ROWS, self._part_room)
        self._group = []

    def write(self, ids: pa.LargeStringArray, vectors: Vectors, codes: Codes | None = None) -> None:
        """Append rows: (B,) ids, (B, d) vectors, (B,) codes."""
        values = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), type=self._schema.field(1).type)
        numbers = [] if codes is None else [pa.array(codes)]
        batch = pa.record_batch([ids.cast(pa.string()), values, *numbers], schema=self._schema)
        while len(batch):
            if self._part_room == 0:
                self._close()
                self._part += 1
                self._open()
            taken = batch.slice(0, self._group_room)
            batch = batch.slice(len(taken))
            self._group.append(taken)
            self._group_room -= len(taken)
            if self._group_room == 0:
                self._flush()

    def close(self) -> None:
        """Write the last row group, and close."""
        if self._writer is None:  # no part of this writer, or one that failed
            return
        try:
            if self._group:
                self._flush()
        finally:
            self._close()


@contextmanager
def _disk_errors() -> Iterator[None]:
    """Give what HDF5 makes of a failed system call back as that: h5py raises it as RuntimeError where it closes."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        found = re.search(r"errno = (\d+)", str(error))
        if found is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1]))) from error


class Hdf5File:
    """Datasets ``embedding`` (n, d) and ``id`` (n,), UTF-8, in chunks of rows whose checksum every reader verifies.

    Args:
        path: the file.
        rows: how many will be written.
        dim: columns of a vector.
        dtype: float32 or float16.
        numbers: name of a dataset of whole numbers (n,), such as ``code``; None without.
    """

    def __init__(
        self, path: Path, rows: int, dim: int, dtype: np.dtype[np.floating], *, numbers: str | None = None
    ) -> None:
        self.digests: dict[Path, str] = {}  # HDF5 writes back and forth
        self._path = path
        # The cache holds a chunk that two blocks share until it is whole, so that it is written once.
        with _disk_errors():
            self._file = h5py.File(path, "w", libver="latest", rdcc_nbytes=4 * _CHUNK_BYTES)
            self._embedding = self._create("embedding", (rows, dim), dtype)
            self._codes = self._create(numbers, (rows,), np.dtype(np.int32)) if numbers else None
        self._ids: list[pa.LargeStringArray] = []
        self._start = 0

    def _create(self, name: str, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> h5py.Dataset:
        row_bytes = dtype.itemsize * int(np.prod(shape[1:], dtype=int))
        chunk_rows = min(shape[0], max(1, _CHUNK_BYTES // row_bytes))
        if chunk_rows == 0:  # nothing to check, and HDF5 has no empty chunk
            return self._file.create_dataset(name, shape, dtype, track_times=False)
        chunks = (chunk_rows, *shape[1:])
        return self._file.create_dataset(name, shape, dtype, chunks=chunks, fletcher32=True, track_times=False)

    def write(self, ids: pa.LargeStringArray, vectors: Vectors, codes: Codes | None = None) -> None:
        """Append rows: (B,) ids, (B, d) vectors, (B,) codes.

        Raises: DataError for an id that HDF5 cannot hold.
        """
        self._refuse_nul(ids)
        with _disk_errors():
            self._embedding[self._start : self._start + len(ids)] = vectors
            if self._codes is not None:
                self._codes[self._start : self._start + len(ids)] = codes
        self._ids.append(ids)
        self._start += len(ids)

    def _refuse_nul(self, ids: pa.LargeStringArray) -> None:
        holds = pc.match_substring(ids, "\0")
        first = pc.index(holds, pa.scalar(True)).as_py()  # noqa: FBT003 - a value, not a switch
        if first >= 0:
            raise DataError(
                what="id cannot be stored in HDF5",
                at=Place(self._path.name, "id", self._start + first, ids[first].as_py()),
                total=pc.sum(holds).as_py(),
                found="a NUL character",
                expected="text without one",
                next_step="Export with --format parquet.",
            )

    def close(self) -> None:
        """Write the ids, and close."""
        with _disk_errors():
            try:
                written = self._write_ids()
                # While the datasets are open: h5py does not report what fails as one is closed.
                self._file.flush()
                del written
            finally:
                self._file.close()

    def _write_ids(self) -> h5py.Dataset:
        # They come last because their type holds the length of the longest.
        length = max((pc.max(pc.binary_length(ids)).as_py() or 1 for ids in self._ids if len(ids)), default=1)
        text = h5py.string_dtype("utf-8", length)
        dataset = self._create("id", (self._start,), text)
        start = 0
        for ids in self._ids:
            encoded = [i.encode() for i in ids.to_pylist()]
            dataset[start : start + len(ids)] = np.array(encoded, dtype=text)
            start += len(ids)
        return dataset
