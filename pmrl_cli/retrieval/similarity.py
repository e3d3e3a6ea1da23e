"""The one loop over similarities: every query with every candidate, some queries at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["cosine_blocks", "nearest_cosines"]

_QUERIES = 1024


def cosine_blocks(queries: Tensor, candidates: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield the inner products of some queries at a time with all candidates: memory is 1,024 rows of them.

    Args:
        queries: (q, d) unit vectors.
        candidates: (n, d) likewise.

    Yields: which queries, and their (b, n) products. The memory is used again for the next block: what is to be kept
        must be copied, and the block may be changed.
    """
    products = queries.new_empty(min(len(queries), _QUERIES), len(candidates))  # fresh memory is slow
    for start in range(0, len(queries), _QUERIES):
        piece = slice(start, min(start + _QUERIES, len(queries)))
        block = products[: piece.stop - start]
        torch.mm(queries[piece], candidates.mT, out=block)
        yield piece, block


def nearest_cosines(
    queries: Tensor, candidates: Tensor, count: int, *, but_own: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the greatest inner products of each query, in any order, and whose they are.

    Args:
        queries: (q, d) unit vectors.
        candidates: (n, d) likewise.
        count: how many for each query, at most n (n - 1 without its own).
        but_own: leave candidate i out for query i.

    Returns: (q, count) products and (q, count) int64 candidates.
    """
    values = queries.new_empty(len(queries), count)
    indices = torch.empty(len(queries), count, dtype=torch.int64)
    for piece, products in cosine_blocks(queries, candidates):
        if but_own:
            products.diagonal(piece.start).fill_(-torch.inf)
        values[piece], indices[piece] = products.topk(count, sorted=False)
    return values, indices
