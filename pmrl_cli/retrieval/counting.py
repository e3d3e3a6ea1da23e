"""Counting, tile by tile, the wrong candidates that score above a right answer, or as it does: see ``tally``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pmrl_cli.array_types import Array, Mask
from pmrl_cli.data.shards import shard_rows
from pmrl_cli.retrieval.batches import Batch
from pmrl_cli.retrieval.precision import precisions
from pmrl_cli.retrieval.queries import Consensus, Vectors, exact_cosines
from pmrl_cli.retrieval.relevance import Pairs, Rights
from pmrl_cli.retrieval.tally import TIE_BAND, Tally

__all__ = ["BEST", "COUNTED", "GREATER", "NOT_LESS", "OTHERS", "PRECISION", "R_PRECISION", "Asked", "Direction"]
__all__ += ["pieces"]


GREATER, NOT_LESS, BEST, PRECISION, R_PRECISION = range(5)
"""What is found for a query: the wrong candidates that score above the best right answer, those that score no less
than it, the right answers that score as it does (itself included), and the average precision and R-precision; the
last three are 0 in a direction that is one to one, where the first two say all."""

COUNTED = 5

OTHERS = "others"
"""Source of a fused query, in the name of a direction."""

_QUERIES = 512  # with 512 candidates, 1 MB of scores and 1 MB of flags: they stay in the cache of a core
_CANDIDATES = 512
_ON_GPU = 16  # times as many of both there: a launch costs more than a cache gives

_PAIRS = 65536  # of right answers whose vectors are held at once


class Direction(NamedTuple):
    """Which modality asks for which."""

    source: int | None  # None: the other modalities, fused
    target: int

    def eligible(self, present: Mask) -> Mask:
        """Return which of the instances, (n, K) present, have both."""
        if self.source is None:
            able: Mask = present[:, self.target] & (present.sum(1) > 1)
        else:
            able = present[:, self.source] & present[:, self.target]
        return able

    def opposite(self) -> Direction:
        """Return the direction back; that of fused queries is itself."""
        return self if self.source is None else Direction(self.target, self.source)

    def name(self, names: Sequence[str]) -> str:
        """Return ``a->b`` or ``others->b``."""
        return f"{OTHERS if self.source is None else names[self.source]}->{names[self.target]}"


def pieces(count: int, most: int) -> Iterator[slice]:
    """Yield slices of ``count`` things, of at most ``most`` each and about equal: a small last one would be slow."""
    number = -(-count // most)
    return (shard_rows(count, piece, number) for piece in range(number))


def _taken(vectors: Tensor, members: Mask) -> Tensor:
    """Return the rows of the members; without a copy where all are."""
    return vectors if members.all() else vectors[torch.from_numpy(members).to(vectors.device)]


def _members(rows: npt.NDArray[np.int64], among: npt.NDArray[np.int64]) -> Mask:
    """Return which of the rows are among others; both ascend."""
    if not len(among):
        return np.zeros(len(rows), dtype=np.bool_)
    found: Mask = among[np.minimum(np.searchsorted(among, rows), len(among) - 1)] == rows
    return found


class Asked:
    """The queries of one batch in one direction, and what was counted for them so far."""

    def __init__(
        self,
        batch: Batch,
        direction: Direction,
        rights: Rights,
        leading: Tensor | None,
        lookup: Callable[[npt.NDArray[np.int64]], Batch],
    ) -> None:
        """Take those of a batch that ask.

        Args:
            batch: instances.
            direction: what they ask.
            rights: of that direction, what is right.
            leading: (B, K, d), what the others of each modality are fused to; None: candidates weight the others.
            lookup: gives the instances of ascending rows, as right answers may be anywhere.
        """
        self.direction, self.rights = direction, rights
        members = _members(batch.rows, rights.queries)
        self.rows = batch.rows[members]
        self.queries: Vectors | Consensus
        if direction.source is not None:
            self.queries = Vectors(_taken(batch.embeddings[:, direction.source], members))
        elif leading is not None:
            self.queries = Vectors(_taken(leading[:, direction.target], members))
        else:
            others = [m for m in range(batch.present.shape[1]) if m != direction.target]
            self.queries = Consensus(
                _taken(batch.embeddings[:, others], members), _taken(batch.present[:, others], members)
            )
        pairs = rights.pairs(np.searchsorted(rights.queries, self.rows))
        if rights.one_to_one:
            scores = self.queries.own(_taken(batch.embeddings[:, direction.target], members))
        else:
            scores = self._scores_of(pairs, lookup)
        self._right = np.bincount(pairs.queries, minlength=len(self.rows))
        most = max(1, int(self._right.max(initial=0)))
        # Right answers from the worst to the best; what a query has fewer than the others is infinitely good.
        self._scores = scores.new_full((len(self.rows), most), torch.inf)
        slots = np.arange(len(pairs.queries)) - np.repeat(np.cumsum(self._right) - self._right, self._right)
        self._scores[torch.from_numpy(pairs.queries), torch.from_numpy(slots)] = scores
        self._scores = self._scores.sort(1).values
        self._edges = torch.stack([self._scores + TIE_BAND, self._scores - TIE_BAND])
        self._tally = Tally(self._scores[:, 0]) if most == 1 else None
        # Of several: by the number of right answers that a candidate is beyond. Whole numbers, exact up to 2^53.
        self._beyond = torch.zeros((2, len(self.rows), most + 1), dtype=torch.float64, device=scores.device)
        order = np.lexsort((pairs.queries, pairs.answers))
        self._by_answer = Pairs(pairs.queries[order], pairs.answers[order])

    def _scores_of(self, pairs: Pairs, lookup: Callable[[npt.NDArray[np.int64]], Batch]) -> Tensor:
        """Return the (P,) exact scores of right answers."""
        order = np.argsort(pairs.answers, kind="stable")
        scores = torch.empty(len(order), device=self.queries.device)
        for start in range(0, len(order), _PAIRS):
            chosen = order[start : start + _PAIRS]
            answers, places = np.unique(pairs.answers[chosen], return_inverse=True)
            vectors = lookup(self.rights.candidates[answers]).embeddings[:, self.direction.target]
            asking = self.queries.piece(torch.from_numpy(pairs.queries[chosen]))
            scores[torch.from_numpy(chosen)] = asking.own(vectors[torch.from_numpy(places)])
        return scores

    def count(self, block: Batch, mirrored: Tensor | None, places: npt.NDArray[np.int64]) -> None:
        """Compare the right answers' scores with those of the wrong candidates of a block.

        Args:
            block: of the gallery, of consecutive rows.
            mirrored: (2, Q), takes the counts of the opposite direction, where the block asks and these queries
                answer, one to one; None: it asks nothing.
            places: (B,) of the instances of the block among those Q.
        """
        if len(block.rows) == 0 or len(self.rows) == 0:
            return
        found = _members(block.rows, self.rights.candidates)
        if not found.any():
            return
        candidates = _taken(block.embeddings[:, self.direction.target], found)
        first = int(np.searchsorted(self.rights.candidates, block.rows[0]))
        theirs = None
        if mirrored is not None:
            assert self.direction.source is not None
            theirs = Tally(exact_cosines(_taken(block.embeddings[:, self.direction.source], found), candidates))

        scale = _ON_GPU if candidates.is_cuda else 1
        memory = candidates.new_empty(2, scale * _QUERIES * scale * _CANDIDATES)  # fresh memory is slow
        asking = list(pieces(len(self.rows), scale * _QUERIES))
        for part in pieces(len(candidates), scale * _CANDIDATES):
            right = self._right_in(first + part.start, first + part.stop)
            for piece in asking:
                shape = piece.stop - piece.start, part.stop - part.start
                scores, flags = (one[: shape[0] * shape[1]].view(shape) for one in memory)
                self.queries.piece(piece).scores(candidates[part], scores)
                here = slice(*np.searchsorted(right.queries, [piece.start, piece.stop]))
                if here.stop > here.start:
                    at = torch.from_numpy(right.queries[here] - piece.start)
                    scores[at, torch.from_numpy(right.answers[here] - first - part.start)] = -torch.inf
                self._add(scores, flags, piece)
                if theirs is not None:
                    theirs.add(scores, part, by=0, flags=flags)
        if mirrored is not None and theirs is not None:
            mirrored[:, torch.from_numpy(places[found]).to(mirrored.device)] += theirs.counts

    def _right_in(self, start: int, stop: int) -> Pairs:
        """Return the right answers among some consecutive candidates, in the order of the queries."""
        there = slice(*np.searchsorted(self._by_answer.answers, [start, stop]))
        queries, answers = self._by_answer.queries[there], self._by_answer.answers[there]
        order = np.argsort(queries, kind="stable")
        return Pairs(queries[order], answers[order])

    def _add(self, scores: Tensor, flags: Tensor, piece: slice) -> None:
        """Add the (q, c) scores of a tile, -inf where an answer is right, to what was counted for a piece."""
        if self._tally is not None:
            self._tally.add(scores, piece, by=1, flags=flags)
            return
        ones = torch.ones_like(scores, dtype=torch.float64)
        for edge, ties in enumerate((False, True)):  # beyond all edges that are less, or not more
            passed = torch.searchsorted(self._edges[edge, piece], scores, right=ties)
            self._beyond[edge, piece].scatter_add_(1, passed, ones)

    def found(self) -> Array:
        """Return (COUNTED, q) of what was found."""
        if self._tally is not None:
            self._beyond[:, :, 1] = self._tally.counts
        beyond = self._beyond[:, :, 1:].flip(2).cumsum(2).flip(2)  # beyond an answer: beyond it and no more, or more
        result: Array = np.zeros((COUNTED, len(self.rows)))
        last = torch.from_numpy(np.maximum(self._right - 1, 0)).to(beyond.device)[None, :, None].expand(2, -1, 1)
        result[: NOT_LESS + 1] = beyond.gather(2, last)[:, :, 0].cpu().numpy()
        if not self.rights.one_to_one and len(self.rows):
            result[BEST:] = precisions(
                self._scores.cpu(), self._edges.cpu(), beyond.cpu(), torch.from_numpy(self._right)
            )
        return result
