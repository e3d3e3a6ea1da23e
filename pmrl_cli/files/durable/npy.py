"""Row stores: an array filled by block in any row order, in a file or in memory."""

from __future__ import annotations

import io
import os
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

__all__ = ["COPY_BYTES", "MemoryRows", "NpyWriter", "RowStore", "digest_rows", "npy_header", "runs"]

COPY_BYTES = 8 * 2**20
"""Bytes moved at a time when stored rows are read again."""


class RowStore(Protocol):
    """An (n, d) array under construction."""

    rows: int
    dim: int
    dtype: np.dtype[Any]

    def put(self, positions: npt.NDArray[np.int64], block: npt.NDArray[Any]) -> None:
        """Write row i of ``block`` (B, d) as row ``positions[i]``."""
        ...

    def write_rows(self, start: int, block: npt.NDArray[Any]) -> None:
        """Write ``block`` (B, d) from row ``start`` on."""
        ...

    def read_rows(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return rows written before."""
        ...

    def shrink(self, keep: npt.NDArray[np.bool_]) -> None:
        """Keep only the rows marked True, in their order."""
        ...


def runs(positions: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return (start, stop) of every stretch of ``positions`` that ascends by one."""
    breaks = np.flatnonzero(np.diff(positions) != 1) + 1
    return list(zip([0, *breaks.tolist()], [*breaks.tolist(), len(positions)], strict=True))


def _shrink(store: RowStore, keep: npt.NDArray[np.bool_]) -> int:
    """Move kept rows together, front to back; return how many there are."""
    step = max(1, COPY_BYTES // (store.dim * store.dtype.itemsize))
    end = 0
    for start in range(0, store.rows, step):
        kept = store.read_rows(start, min(start + step, store.rows))[keep[start : start + step]]
        store.write_rows(end, kept)
        end += len(kept)
    return end


def npy_header(dtype: np.dtype[Any], rows: int, dim: int) -> bytes:
    """Return what stands before the elements of an (n, d) array in an npy file; its length does not depend on n."""
    header = io.BytesIO()
    description = {"descr": dtype.newbyteorder("<").str, "fortran_order": False, "shape": (rows, dim)}
    np.lib.format.write_array_header_1_0(header, description)
    return header.getvalue()


def digest_rows(store: RowStore) -> str:
    """Return the SHA-256 (hex) of the npy file that holds the stored rows in order."""
    step = max(1, COPY_BYTES // (store.dim * store.dtype.itemsize))
    digest = sha256(npy_header(store.dtype, store.rows, store.dim))
    for start in range(0, store.rows, step):
        digest.update(store.read_rows(start, min(start + step, store.rows)).data)
    return digest.hexdigest()


class NpyWriter:
    """An npy file written by positioned writes, so that what it holds never counts as our memory.

    Rows not written are zeros. A context manager: leaving it closes the file.

    Args:
        path: file to make (or make again).
        dtype: type of the elements, written little-endian.
        rows: n.
        dim: d.
    """

    def __init__(self, path: Path, dtype: npt.DTypeLike, rows: int, dim: int) -> None:
        self.path = path
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self.rows = rows
        self.dim = dim
        self._row_bytes = dim * self.dtype.itemsize
        self._file = path.open("w+b", buffering=0)
        self._finish(rows)

    def _finish(self, rows: int) -> None:
        header = npy_header(self.dtype, rows, self.dim)
        self._start = len(header)
        self._write(0, memoryview(header))
        os.ftruncate(self._file.fileno(), self._start + rows * self._row_bytes)
        self.rows = rows

    def _write(self, offset: int, data: memoryview) -> None:
        while data:
            written = os.pwrite(self._file.fileno(), data, offset)
            data = data[written:]
            offset += written

    def write_rows(self, start: int, block: npt.NDArray[Any]) -> None:
        """Write ``block`` (B, d) from row ``start`` on."""
        if len(block):
            rows = np.ascontiguousarray(block, dtype=self.dtype)
            self._write(self._start + start * self._row_bytes, rows.reshape(-1).view(np.uint8).data)

    def put(self, positions: npt.NDArray[np.int64], block: npt.NDArray[Any]) -> None:
        """Write row i of ``block`` (B, d) as row ``positions[i]``."""
        if not len(positions):
            return
        order = np.argsort(positions, kind="stable")
        positions, block = positions[order], np.ascontiguousarray(block[order], dtype=self.dtype)
        for start, stop in runs(positions):
            self.write_rows(int(positions[start]), block[start:stop])

    def read_rows(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return rows written before, (stop - start, d)."""
        block = np.empty((stop - start, self.dim), dtype=self.dtype)
        view = block.reshape(-1).view(np.uint8).data
        offset = self._start + start * self._row_bytes
        while view:
            count = os.preadv(self._file.fileno(), [view], offset)
            view = view[count:]
            offset += count
        return block

    def shrink(self, keep: npt.NDArray[np.bool_]) -> None:
        """Keep only the rows marked True, in their order."""
        self._finish(_shrink(self, keep))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self._file.close()


class MemoryRows:
    """An array in memory behind the same face; rows not written are zeros.

    Args:
        dtype: type of the elements.
        rows: n.
        dim: d.
    """

    def __init__(self, dtype: npt.DTypeLike, rows: int, dim: int) -> None:
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.rows = rows
        self.dim = dim
        self.array: npt.NDArray[Any] = np.zeros((rows, dim), dtype=self.dtype)

    def put(self, positions: npt.NDArray[np.int64], block: npt.NDArray[Any]) -> None:
        """Write row i of ``block`` (B, d) as row ``positions[i]``."""
        self.array[positions] = block

    def write_rows(self, start: int, block: npt.NDArray[Any]) -> None:
        """Write ``block`` (B, d) from row ``start`` on."""
        self.array[start : start + len(block)] = block

    def read_rows(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return rows written before, (stop - start, d)."""
        return self.array[start:stop]

    def shrink(self, keep: npt.NDArray[np.bool_]) -> None:
        """Keep only the rows marked True, in their order."""
        self.rows = _shrink(self, keep)
        self.array = self.array[: self.rows]
