"""Hashes of ids: the one source of every reproducible choice of instances."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["hash_ids", "hash_values", "unit_interval"]


def hash_ids(ids: pa.Array, seed: int) -> npt.NDArray[np.uint64]:
    """Return a 64-bit hash of each id under a seed.

    An id hashes the same in every data set, order, process and machine, so a choice made by hash (validation
    split, subsample) moves nobody when instances are added or reordered. BLAKE2b keyed by the seed.

    Args:
        ids: (n,) Arrow string array without nulls.
        seed: any integer.

    Returns: (n,) uint64.
    """
    key = str(seed).encode()
    digests = b"".join(blake2b(str(i).encode(), digest_size=8, key=key).digest() for i in ids.to_pylist())
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def hash_values(column: pa.Array, seed: int) -> npt.NDArray[np.uint64]:
    """Return a 64-bit hash of each value of a side column under a seed, 0 for nulls alone."""
    hashes = np.maximum(hash_ids(column.cast(pa.large_string()).fill_null(""), seed), np.uint64(1))
    return np.where(column.is_null().to_numpy(zero_copy_only=False), np.uint64(0), hashes)


def unit_interval(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """Map hashes to [0, 1), keeping 53 bits."""
    return (hashes >> np.uint64(11)).astype(np.float64) * 2.0**-53
