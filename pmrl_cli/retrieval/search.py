"""Exact nearest neighbours by cosine, by blocks: the best k of a gallery of any size for each query."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pmrl_cli.data.dataset import Dataset, Rows
from pmrl_cli.errors import DataError
from pmrl_cli.fusion import fuse
from pmrl_cli.retrieval.batches import read_batch

__all__ = ["CSLS_NEIGHBOURS", "Neighbours", "SearchResults", "hubness_penalty", "nearest", "search"]

CSLS_NEIGHBOURS = 10
"""Queries whose mean cosine with a candidate is its hubness, as in the paper."""

HELD_BYTES = 128 * 2**20
"""Bytes of the queries that are held at once: each time, all of the gallery is read again."""

_QUERIES = 512
_CANDIDATES = 2048  # with 512 queries, 4 MB of scores


class Neighbours(NamedTuple):
    """The nearest of a gallery.

    Args:
        rows: (q, k) int64, rows of the gallery, best first; of equal scores the first row stands first.
        scores: (q, k) float32, descending.
        closest: (q,) int64 row of the highest cosine, -1 in an empty gallery: ``rows[:, 0]`` but for a penalty.
    """

    rows: Tensor
    scores: Tensor
    closest: Tensor


class SearchResults(NamedTuple):
    """The nearest candidates of some queries.

    Args:
        queries: (q,) int64 rows of the data set of queries.
        rows: (q, k) int64 rows of the data set that was searched, best first.
        scores: (q, k) float32, descending: cosines, or those less the hubness of the candidate (CSLS).
        closest: (q,) int64 rows of the data set that was searched: the first by cosine, also where CSLS ranks.
    """

    queries: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    closest: npt.NDArray[np.int64]


def search(
    queries: Dataset,
    gallery: Dataset,
    count: int,
    *,
    source: str | None = None,
    target: str | None = None,
    csls: bool = False,
) -> Iterator[SearchResults]:
    """Yield the ``count`` nearest instances of a gallery for each query, block by block in the order of the queries.

    Args:
        queries: vectors of one dim, that of the gallery.
        gallery: likewise; it is read once for every ``HELD_BYTES`` of queries.
        count: k >= 1; at most as many as the gallery has.
        source: modality of the queries; None: all of an instance, fused to their leading direction.
        target: modality of the candidates; None: likewise.
        csls: rank by CSLS (``hubness_penalty``) instead of the cosine.

    Instances without the modality of the queries ask nothing, and those without that of the candidates are none.

    Raises: DataError for an unknown modality, for modalities of different dims, or if nothing asks or nothing can be
        found.
    """
    _check_dims(queries, gallery)
    asking, searched = _Side(queries, source, "queries"), _Side(gallery, target, "candidates")
    penalty = None
    if csls:
        penalty = hubness_penalty((vectors for _, vectors in searched.held()), asking.blocks)
    count = min(count, len(searched.rows))
    for rows, vectors in asking.held():
        found = nearest(vectors, searched.blocks(), count, penalty=penalty)
        ranked, closest = (searched.rows[found_rows.numpy()] for found_rows in (found.rows, found.closest))
        yield SearchResults(rows, ranked, found.scores.numpy(), closest)


def _check_dims(queries: Dataset, gallery: Dataset) -> None:
    if len({*queries.dims, *gallery.dims}) > 1:
        raise DataError(
            what="queries and gallery are not in one space",
            found=", ".join(f"{f.name} has {f.dim} columns" for d in (queries, gallery) for f in d.modalities),
            expected="equal numbers of columns",
            next_step="Pass --model MODEL, or give what pmrl export wrote with one model.",
        )


class _Side:
    """The vectors of the queries, or of the candidates: those of one modality, or of all fused."""

    def __init__(self, dataset: Dataset, name: str | None, role: str) -> None:
        if name is not None and name not in dataset.names:
            raise DataError(
                what=f"no such modality of {role}",
                found=repr(name),
                expected=f"one of {', '.join(dataset.names)}",
                next_step=f"Name one of these with {'--from' if role == 'queries' else '--to'}.",
            )
        self._dataset = dataset
        self._index = 0 if len(dataset.names) == 1 else None if name is None else dataset.names.index(name)
        present = dataset.present
        self.rows = np.flatnonzero(present.any(1) if self._index is None else present[:, self._index])
        if len(self.rows) == 0:
            raise DataError(
                what=f"no {role}",
                found=f"no instance among {len(dataset):,} with {name or 'any modality'}",
                expected="one or more",
                next_step="Check with pmrl inspect what the files hold.",
            )

    def blocks(self) -> Iterator[Tensor]:
        """Yield (b, d) unit vectors, in the order of the rows."""
        return (self._read(rows) for rows in self._dataset.blocks(self.rows))

    def held(self) -> Iterator[tuple[npt.NDArray[np.int64], Tensor]]:
        """Yield rows and their vectors, as many at a time as are held at once."""
        step = max(1, HELD_BYTES // (4 * self._dataset.dims[0]))
        for start in range(0, len(self.rows), step):
            rows = self.rows[start : start + step]
            yield rows, torch.cat([self._read(block) for block in self._dataset.blocks(rows)])

    def _read(self, rows: Rows) -> Tensor:
        batch = read_batch(self._dataset, rows)
        return fuse(batch.embeddings, batch.present) if self._index is None else batch.embeddings[:, self._index]


def nearest(queries: Tensor, gallery: Iterable[Tensor], count: int, *, penalty: Tensor | None = None) -> Neighbours:
    """Return the ``count`` nearest of a gallery for each query.

    score(q, g) = <q, g>, or 2 <q, g> - penalty_g, which ranks as CSLS does (``hubness_penalty``). After the first
    block a score is only considered if it beats the query's k-th best so far: over n candidates in random order some
    k ln(n / block) of them do, so that the time is that of the matrix products.

    Args:
        queries: (q, d) float32 unit vectors.
        gallery: (c_i, d) float32 unit vectors, block by block; read once.
        count: k >= 1; at most the size of the gallery is returned.
        penalty: (n,) float32 of the whole gallery; None for cosines.

    Returns: at most k of each query, in one size for all.
    """
    best = _Best(queries, count)
    closest = best if penalty is None else _Best(queries, 1)
    start = 0
    for block in gallery:
        for low in range(0, len(block), _CANDIDATES):
            candidates = block[low : low + _CANDIDATES]
            stop = start + len(candidates)
            for first in range(0, len(queries), _QUERIES):
                piece = slice(first, first + _QUERIES)
                scores = queries[piece] @ candidates.mT
                if penalty is not None:
                    closest.merge(piece, scores, start)
                    scores = 2 * scores - penalty[start:stop]
                best.merge(piece, scores, start)
            start = stop
    size = min(count, start)
    return Neighbours(best.rows[:, :size], best.scores[:, :size], closest.rows[:, 0])


class _Best:
    """The best so far: rows, -1 where there were too few, and scores, descending, in memory that stays.

    Small tensors made anew between the large ones of every block would lie between those when they are freed, in
    pieces that nothing else fits.
    """

    def __init__(self, queries: Tensor, count: int) -> None:
        shape = len(queries), count
        self.rows = torch.full(shape, -1, device=queries.device)
        self.scores = queries.new_full(shape, -torch.inf)

    def merge(self, piece: slice, scores: Tensor, start: int) -> None:
        """Take in the scores of one block for some queries; the rows of the block begin at ``start``.

        Rows of the block come after all rows before it, so a stable sort keeps equal scores in the order of their
        rows.
        """
        rows, best = self.rows[piece], self.scores[piece]
        seen = min(start, best.shape[1])
        if seen < best.shape[1]:
            new = torch.arange(start, start + scores.shape[1], device=scores.device).expand_as(scores)
            together = torch.cat([rows[:, :seen], new], 1), torch.cat([best[:, :seen], scores], 1)
            self._keep(torch.arange(piece.start, piece.start + len(scores), device=scores.device), together)
            return
        better = scores > best[:, -1:]
        counts = better.sum(1)
        changed = counts.nonzero()[:, 0]
        if len(changed) == 0:
            return
        queries, columns = better.nonzero(as_tuple=True)
        # What is better, one query a line, the lines filled with what never wins.
        place = torch.arange(len(queries), device=scores.device) - (counts.cumsum(0) - counts)[queries]
        line = torch.searchsorted(changed, queries)
        shape = len(changed), int(counts.max())
        new_scores = scores.new_full(shape, -torch.inf)
        new_scores[line, place] = scores[queries, columns]
        new_rows = torch.full(shape, -1, device=scores.device)
        new_rows[line, place] = start + columns
        together = torch.cat([rows[changed], new_rows], 1), torch.cat([best[changed], new_scores], 1)
        self._keep(changed + piece.start, together)

    def _keep(self, queries: Tensor, together: tuple[Tensor, Tensor]) -> None:
        rows, scores = together
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        size = min(self.rows.shape[1], scores.shape[1])
        self.rows[queries, :size] = rows.gather(1, order[:, :size])
        self.scores[queries, :size] = scores[:, :size]


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
