"""Exact nearest neighbours by cosine, by blocks: the best k of a gallery of any size for each query."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["CSLS_NEIGHBOURS", "Neighbours", "hubness_penalty", "nearest"]

CSLS_NEIGHBOURS = 10
"""Queries whose mean cosine with a candidate is its hubness, as in the paper."""

_QUERIES = 512
_CANDIDATES = 2048  # with 512 queries, 4 MB of scores


class Neighbours(NamedTuple):
    """The nearest of a gallery.

    Args:
        rows: (q, k) int64, rows of the gallery, best first; of equal scores the first row stands first.
        scores: (q, k) float32, descending.
    """

    rows: Tensor
    scores: Tensor


def nearest(queries: Tensor, gallery: Iterable[Tensor], count: int, *, penalty: Tensor | None = None) -> Neighbours:
    """Return the ``count`` nearest of a gallery for each query.

    score(q, g) = <q, g>, or 2 <q, g> - penalty_g, which ranks as CSLS does (``hubness_penalty``). After the first
    block a score is only looked at if it beats the query's k-th best so far: over n candidates in random order some
    k ln(n / block) of them do, so that the time is that of the matrix products.

    Args:
        queries: (q, d) float32 unit vectors.
        gallery: (c_i, d) float32 unit vectors, block by block; read once.
        count: k >= 1; at most the size of the gallery is returned.
        penalty: (n,) float32 of the whole gallery; None for cosines.

    Returns: at most k of each query, in one size for all.
    """
    best = Neighbours(
        torch.empty((len(queries), 0), dtype=torch.int64, device=queries.device), queries.new_empty((len(queries), 0))
    )
    start = 0
    for block in gallery:
        for low in range(0, len(block), _CANDIDATES):
            candidates = block[low : low + _CANDIDATES]
            stop = start + len(candidates)
            pieces = []
            for first in range(0, max(1, len(queries)), _QUERIES):
                piece = slice(first, first + _QUERIES)
                scores = queries[piece] @ candidates.mT
                if penalty is not None:
                    scores = 2 * scores - penalty[start:stop]
                pieces.append(_merged(Neighbours(best.rows[piece], best.scores[piece]), scores, start, count))
            best = Neighbours(*(torch.cat(parts) for parts in zip(*pieces, strict=True)))
            start = stop
    return best


def _merged(best: Neighbours, scores: Tensor, start: int, count: int) -> Neighbours:
    """Return the best of those so far and of one block, whose rows begin at ``start``.

    Rows of the block come after all rows before it, so a stable sort keeps equal scores in the order of their rows.
    """
    if best.rows.shape[1] < count:
        rows = torch.arange(start, start + scores.shape[1], device=scores.device).expand_as(scores)
        return _sorted(torch.cat([best.rows, rows], 1), torch.cat([best.scores, scores], 1), count)
    better = scores > best.scores[:, -1:]
    counts = better.sum(1)
    changed = counts.nonzero()[:, 0]
    if len(changed) == 0:
        return best
    queries, columns = better.nonzero(as_tuple=True)
    # What is better, one query a line, the lines filled with what never wins.
    place = torch.arange(len(queries), device=scores.device) - (counts.cumsum(0) - counts)[queries]
    line = torch.searchsorted(changed, queries)
    shape = len(changed), int(counts.max())
    new_scores = scores.new_full(shape, -torch.inf)
    new_scores[line, place] = scores[queries, columns]
    new_rows = torch.full(shape, -1, device=scores.device)
    new_rows[line, place] = start + columns
    merged = _sorted(
        torch.cat([best.rows[changed], new_rows], 1), torch.cat([best.scores[changed], new_scores], 1), count
    )
    rows, kept = best.rows.clone(), best.scores.clone()
    rows[changed], kept[changed] = merged
    return Neighbours(rows, kept)


def _sorted(rows: Tensor, scores: Tensor, count: int) -> Neighbours:
    scores, order = scores.sort(dim=1, descending=True, stable=True)
    return Neighbours(rows.gather(1, order)[:, :count], scores[:, :count])


def hubness_penalty(gallery: Iterable[Tensor], queries: Callable[[], Iterable[Tensor]]) -> Tensor:
    """Return the (n,) mean cosine of each candidate with its ``CSLS_NEIGHBOURS`` nearest queries.

    A candidate near to many queries is a hub: it ranks high for all. CSLS(q, g) = 2 <q, g> - r(q) - r(g) takes
    the mean cosine of both ends with their neighbours off; r(q) is the same for every candidate of a query, so it
    changes no order and is left out.

    Args:
        gallery: (c_i, d) unit vectors, block by block.
        queries: gives all queries, block by block, at each call: once for every block of the gallery.

    Source: Conneau, Lample, Ranzato, Denoyer, Jégou, "Word Translation Without Parallel Data", ICLR 2018, section
        2.3; departs: r(q) left out, as above.
    """
    return torch.cat([nearest(block, queries(), CSLS_NEIGHBOURS).scores.mean(1) for block in gallery])
