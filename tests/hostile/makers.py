"""Feature files that mean harm, each small and made by a few lines."""

from __future__ import annotations

import struct
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROWS = 40
IDS = [f"i{row}" for row in range(ROWS)]
X = np.random.default_rng(0).normal(size=(ROWS, 9)).astype(np.float32)
MASK = 0xFFFFFFFF


def good(folder: Path, name: str = "good.npz") -> str:
    """A harmless partner, in a format that needs no library of its own."""
    np.savez(folder / name, features=X[:, :4], ids=np.array(IDS))
    return str(folder / name)


def lookup3(data: bytes) -> int:
    """HDF5's metadata checksum (Bob Jenkins, lookup3.c, hashlittle with initial value 0)."""

    def turned(value: int, by: int) -> int:
        return ((value << by) | (value >> (32 - by))) & MASK

    state = [(0xDEADBEEF + len(data)) & MASK] * 3
    start = 0
    while len(data) - start > 12:
        words = struct.unpack_from("<III", data, start)
        a, b, c = ((one + word) & MASK for one, word in zip(state, words, strict=True))
        for by in (4, 6, 8, 16, 19, 4):
            # each line of mix() is the same one, the three names moved on by one place
            a = ((a - c) & MASK) ^ turned(c, by)
            c = (c + b) & MASK
            a, b, c = b, c, a
        state = [a, b, c]
        start += 12
    words = struct.unpack("<III", data[start:].ljust(12, b"\0"))
    a, b, c = ((one + word) & MASK for one, word in zip(state, words, strict=True))
    for by in (14, 11, 25, 16, 4, 14, 24):
        c = ((c ^ b) - turned(b, by)) & MASK
        a, b, c = b, c, a
    return b


def crashing(path: Path) -> Path:
    """An HDF5 file whose chunk index says that its records have no bytes: HDF5 divides by that (SIGFPE)."""
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset("features", data=X, chunks=(4, 4), maxshape=(None, None))
        file["ids"] = IDS
    data = bytearray(path.read_bytes())
    at, length = data.index(b"BTHD"), 34
    assert struct.unpack_from("<I", data, at + length)[0] == lookup3(bytes(data[at : at + length]))
    struct.pack_into("<H", data, at + 10, 0)
    struct.pack_into("<I", data, at + length, lookup3(bytes(data[at : at + length])))
    path.write_bytes(data)
    return path


def slow(path: Path) -> Path:
    """Some kilobytes of gzip that hold 96 million ids: seconds of work."""
    with h5py.File(path, "w") as file:
        file["features"] = X
        zeros = np.zeros(96_000_000, "S1")
        file.create_dataset("ids", data=zeros, chunks=(4_000_000,), compression="gzip", compression_opts=9)
    return path


def packed(path: Path, rows: int) -> Path:
    """Parquet whose dictionary holds one value, so that ``rows`` vectors of 256 take next to nothing."""
    values = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows * 256, np.int8)), pa.array([1.5], pa.float32()))
    lists = pa.FixedSizeListArray.from_arrays(values.cast(pa.float32()), 256)
    pq.write_table(pa.table({"embedding": lists}), path, compression="zstd", row_group_size=rows)
    return path
