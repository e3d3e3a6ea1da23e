"""Hashes of ids: the one source of every reproducible choice of instances."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b, sha256

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["digest_ids", "hash_ids", "hash_values", "rows_of", "unit_interval"]


def hash_ids(ids: pa.Array, seed: int) -> npt.NDArray[np.uint64]:
    """Return a 64-bit hash of each id under a seed.

    An id hashes the same in every data set, order, process and machine, so a choice made by hash (validation
    split, subsample) stays the same when instances are added or reordered. BLAKE2b keyed by the seed.

    Args:
        ids: (n,) Arrow string array without nulls.
        seed: any integer.

    Returns: (n,) uint64.
    """
    # Copying the keyed state costs half of making one. BLAKE2b in NumPy, over all ids at once, would be no faster:
    # its twelve rounds are two thousand operations on 64-bit words.
    keyed = blake2b(digest_size=8, key=str(seed).encode())

    def digest(text: str) -> bytes:
        state = keyed.copy()
        state.update(text.encode())
        return state.digest()

    digests = b"".join([digest(text) for text in ids.cast(pa.large_string()).to_pylist()])
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def digest_ids(ids: pa.LargeStringArray) -> str:
    """Return the SHA-256 (hex) of the ids in order: their lengths in bytes, then their UTF-8 bytes."""
    compact = pa.concat_arrays([ids])  # a slice keeps the buffers of the whole
    digest = sha256(pc.binary_length(compact).to_numpy(zero_copy_only=False).astype("<i8").data)
    offsets = np.frombuffer(compact.buffers()[1], dtype=np.int64)[: len(compact) + 1]
    if len(compact):
        digest.update(memoryview(compact.buffers()[2])[offsets[0] : offsets[-1]])
    return digest.hexdigest()


def hash_values(column: pa.Array, seed: int) -> npt.NDArray[np.uint64]:
    """Return a 64-bit hash of each value of a side column under a seed, 0 for nulls alone."""
    hashes = np.maximum(hash_ids(column.cast(pa.large_string()).fill_null(""), seed), np.uint64(1))
    return np.where(column.is_null().to_numpy(zero_copy_only=False), np.uint64(0), hashes)


def unit_interval(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """Map hashes to [0, 1), keeping 53 bits."""
    return (hashes >> np.uint64(11)).astype(np.float64) * 2.0**-53


def rows_of(ids: pa.Array, wanted: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return where some ids stand among (n,) unique ids; all must be there."""
    found = pc.index_in(pa.array(list(wanted), pa.large_string()), value_set=ids)
    rows: npt.NDArray[np.int64] = found.to_numpy(zero_copy_only=False).astype(np.int64)
    return rows
