"""The one loop over similarities: every query with every candidate, some queries at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

__all__ = ["cosine_blocks", "nearest_both_ways", "nearest_cosines"]

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
        values[piece], indices[piece] = _nearest(products, count)
    return values, indices


def _nearest(products: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the (b, count) greatest of each row of (b, n) products, in any order, and their columns.

    The greatest of the groups of columns are ``count`` products at least: none of those sought is less than these.
    """
    rows, columns = products.shape
    if products.is_cuda or not 0 < _MANY * count <= columns:
        return products.topk(count, sorted=False)
    whole = columns // _IN_GROUP
    tops = products[:, : whole * _IN_GROUP].view(rows, whole, _IN_GROUP).amax(2).numpy()
    tops.partition(whole - count, axis=1)
    flat = np.flatnonzero(products.numpy() >= tops[:, whole - count, None])
    row, column = np.divmod(flat, columns)
    of_row = np.bincount(row, minlength=rows)
    place = np.arange(len(flat)) - np.repeat(np.cumsum(of_row) - of_row, of_row)
    near = products.new_full((rows, int(of_row.max())), -torch.inf)
    whose = torch.zeros(near.shape, dtype=torch.int64)
    near[row, place] = products.view(-1)[flat]
    whose[row, place] = torch.from_numpy(column)
    values, chosen = near.topk(count, sorted=False)
    indices = whose.gather(1, chosen)
    tied = (near >= values.amin(1, keepdim=True)).sum(1) > count  # whose turn it is, topk decides among all
    if tied.any():
        values[tied], indices[tied] = products[tied].topk(count, sorted=False)
    return values, indices


def nearest_both_ways(pairs: Iterable[tuple[Tensor, Tensor, int]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the greatest inner products of each of the first with the second, and the other way.

    What ``nearest_cosines`` finds both ways, of one product where there are many.

    Args:
        pairs: (n, d) and (m, d) unit vectors, so few that all their products can be held, and how many products are
            wanted of each, at most n and m.

    Yields: (n, count) and (m, count).
    """
    memory = torch.empty(0)  # fresh memory is slow
    for first, second, count in pairs:
        if first.is_cuda or min(len(first), len(second)) < _MANY * count:
            yield nearest_cosines(first, second, count)[0], nearest_cosines(second, first, count)[0]
            continue
        size = len(first) * len(second)
        memory = memory if len(memory) >= size else first.new_empty(size)
        products = torch.mm(first, second.mT, out=memory[:size].view(len(first), len(second)))
        yield _greatest(products, count), _greatest(products.mT, count)


_MANY = 64
"""Candidates for each that is wanted from which groups of them are looked at: there ``topk`` sorts what it finds."""

_IN_GROUP = 32


def _greatest(products: Tensor, count: int) -> Tensor:
    """Return the (b, count) greatest of each row of (b, n) products or of the transpose of such, descending.

    They lie in the groups of columns whose greatest are greatest: the others need no sorting.
    """
    rows, columns = products.shape
    whole = columns // _IN_GROUP
    grouped = products[:, : whole * _IN_GROUP]
    groups = grouped.view(rows, whole, _IN_GROUP)
    by_row = products.is_contiguous()  # else the same in a tenth of the time
    tops = groups.amax(2) if by_row else grouped.mT.view(whole, _IN_GROUP, rows).amax(1).mT
    chosen = np.argpartition(tops.numpy(), whole - count, axis=1)[:, whole - count :]
    near = groups.numpy()[np.arange(rows)[:, None], chosen].reshape(rows, -1)
    near = np.concatenate([near, products[:, whole * _IN_GROUP :].numpy()], axis=1)
    near.partition(near.shape[1] - count, axis=1)
    found = near[:, -count:]
    found.sort(axis=1)
    return torch.from_numpy(found[:, ::-1].copy())
