"""Equal, consecutive shards of rows, one for each of several workers."""

from __future__ import annotations

__all__ = ["shard_rows"]


def shard_rows(count: int, index: int, of: int) -> slice:
    """Return the shard of ``count`` rows that one of several equal workers does.

    The shards are consecutive, cover every row once, and differ by one row at most; with more shards than rows some
    are empty.

    Args:
        count: rows, at least 0.
        index: which shard, in [0, of).
        of: how many shards, at least 1.
    """
    return slice(count * index // of, count * (index + 1) // of)
