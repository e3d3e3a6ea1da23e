"""Exact ranks by blocks: where its own partner stands among all candidates, for every query and direction.

A direction ``a->b`` asks with the embedding of modality a for the instance's own embedding of modality b. Queries
and gallery are the same instances, those that have both, so the two directions of a pair have galleries of one
size. ``others->b`` (three modalities or more) asks with the instance's other modalities fused, over the instances
that have b and at least one other: with their leading direction, or with the consensus that each candidate weights
(``pmrl_cli.fusion``).

Scores are float32 cosines. The same pair of vectors scores differently in different matrix products, by some 1e-7:
a comparison without tolerance lets 45 % of exact copies count themselves. So the partner is excluded by its
position, and scores within ``TIE_BAND`` of the partner's tie with it.

Where everyone asks, the scores of ``a->b`` are those of ``b->a`` transposed: one product serves both.

What a share of the queries counts, in both directions of such a product, adds up over shares (``count_share``):
several processes may each take a share, and the sum of their counts has the ranks of all (``ranks_of``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pmrl_cli.data.dataset import Dataset
from pmrl_cli.data.split import shard
from pmrl_cli.retrieval.batches import Batch, read_batch
from pmrl_cli.retrieval.queries import Consensus, Vectors, exact_cosines
from pmrl_cli.spectrum import leave_one_out_directions
from pmrl_cli.world import ALONE, World

__all__ = ["OTHERS", "TIE_BAND", "Counts", "Ranks", "count_share", "rank_batch", "rank_dataset", "ranks_of"]

Counts = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

TIE_BAND = 2e-6
"""Cosines closer than this tie: ten times the rounding of a float32 product of 512 columns."""

OTHERS = "others"
"""Source of a fused query, in the name of a direction."""

_QUERIES = 512  # with 512 candidates, 1 MB of scores and 1 MB of flags: they stay in the cache of a core
_CANDIDATES = 512
_ON_GPU = 16  # times as many of both there: a launch costs more than a cache gives

_HELD_BYTES = 128 * 2**20
"""Bytes of the vectors of the queries that are held at once: each time, all of the gallery is read again."""


class Ranks(NamedTuple):
    """Where the partners of the queries of one direction stand.

    Args:
        rows: (q,) int64, ascending: the instances that ask.
        greater: (q,) int64, candidates that score above the partner.
        tied: (q,) int64, candidates besides the partner that score as it does.
        gallery: candidates per query, the partner included.
    """

    rows: npt.NDArray[np.int64]
    greater: npt.NDArray[np.int64]
    tied: npt.NDArray[np.int64]
    gallery: int


class _Direction(NamedTuple):
    source: int | None  # None: the other modalities, fused
    target: int

    def eligible(self, present: Mask) -> Mask:
        if self.source is None:
            able: Mask = present[:, self.target] & (present.sum(1) > 1)
        else:
            able = present[:, self.source] & present[:, self.target]
        return able

    def opposite(self) -> _Direction:
        return self if self.source is None else _Direction(self.target, self.source)

    def name(self, names: Sequence[str]) -> str:
        return f"{OTHERS if self.source is None else names[self.source]}->{names[self.target]}"


def _directions(count: int, *, fused: bool) -> list[_Direction]:
    pairs = [_Direction(a, b) for a in range(count) for b in range(count) if a != b]
    # With two modalities "the others" are one modality: the same question again.
    return pairs + ([_Direction(None, b) for b in range(count)] if fused and count > 2 else [])


def rank_dataset(
    dataset: Dataset, queries: npt.NDArray[np.int64], *, fusion: str = "leading", world: World = ALONE
) -> dict[str, Ranks]:
    """Rank the partners of some instances among all instances of a data set.

    Time is that of the matrix products; memory is bounded by the queries that are held at once.

    Args:
        dataset: modalities of one dim.
        queries: ascending rows of the instances that ask.
        fusion: of ``others->b``, one of ``pmrl_cli.fusion.FUSIONS``.
        world: the processes that ask a share each, of a data set that all of them have.

    Returns: ranks by direction (``a->b``, ``others->b``); a direction nobody can ask is absent.
    """
    counts = count_share(dataset, queries, shard(len(queries), world.rank, world.size), fusion=fusion)
    world.sum(torch.from_numpy(counts))
    return ranks_of(counts, dataset, queries)


def count_share(dataset: Dataset, queries: npt.NDArray[np.int64], share: slice, *, fusion: str = "leading") -> Counts:
    """Ask with a share of the queries among all instances: the counts of disjoint shares add up to those of all.

    Args:
        dataset: modalities of one dim.
        queries: (q,) ascending rows of the instances that ask, in all shares together.
        share: which of them ask here.
        fusion: as of ``rank_dataset``.

    Returns: (D, 2, q) for ``ranks_of``. Where all instances ask, a share also counts for the queries of others, in
        the directions that are read off the scores of the opposite one.
    """
    asking = queries[share]
    row_bytes = 4 * sum(dataset.dims)
    pieces = (read_batch(dataset, asking[piece]) for piece in _pieces(len(asking), max(1, _HELD_BYTES // row_bytes)))
    return _count(
        pieces,
        lambda: (read_batch(dataset, rows) for rows in dataset.blocks()),
        _directions(len(dataset.names), fused=True),
        queries,
        fusion=fusion,
        everyone=len(queries) == int((dataset.present.sum(1) > 1).sum()),
    )


def ranks_of(counts: Counts, dataset: Dataset, queries: npt.NDArray[np.int64]) -> dict[str, Ranks]:
    """Return the ranks, as ``rank_dataset`` does, from the sum over all shares of what ``count_share`` returned.

    Args:
        counts: (D, 2, q).
        dataset: the one that was counted in.
        queries: (q,) as they were given to ``count_share``.
    """
    directions = _directions(len(dataset.names), fused=True)
    return _named(counts, directions, dataset.names, queries, dataset.present[queries], dataset.present)


def rank_batch(batch: Batch, names: tuple[str, ...], *, fused: bool = True) -> dict[str, Ranks]:
    """Rank the partners of all instances of a batch within it; as ``rank_dataset``.

    Args:
        batch: the instances, on any device.
        names: of the modalities.
        fused: also ask with the leading direction of the other modalities (``others->b``).
    """
    directions = _directions(len(names), fused=fused)
    counts = _count([batch], lambda: [batch], directions, batch.rows, fusion="leading", everyone=True)
    present = batch.present.cpu().numpy()
    return _named(counts, directions, names, batch.rows, present, present)


def _named(
    counts: Counts,
    directions: Sequence[_Direction],
    names: Sequence[str],
    queries: npt.NDArray[np.int64],
    asking: Mask,
    candidates: Mask,
) -> dict[str, Ranks]:
    """Return ranks by direction.

    Args:
        counts: (D, 2, q).
        directions: those that were counted.
        names: of the modalities.
        queries: (q,) rows.
        asking: (q, K), what the queries have.
        candidates: (n, K), what the gallery has.
    """
    results = {}
    for (greater, not_less), direction in zip(counts, directions, strict=True):
        gallery = int(direction.eligible(candidates).sum())
        if gallery:
            asks = direction.eligible(asking)
            results[direction.name(names)] = Ranks(queries[asks], greater[asks], (not_less - greater)[asks], gallery)
    return results


def _count(
    asking: Iterable[Batch],
    gallery: Callable[[], Iterable[Batch]],
    directions: Sequence[_Direction],
    queries: npt.NDArray[np.int64],
    *,
    fusion: str,
    everyone: bool,
) -> Counts:
    """Count the candidates that score above a partner, and those that score no less.

    Args:
        asking: the instances that ask.
        gallery: gives all instances, block by block.
        directions: what is asked.
        queries: (q,) ascending rows that ask, here or elsewhere.
        fusion: of ``others->b``.
        everyone: whether those are all instances that can, so that two directions can share their scores.

    Returns: (D, 2, q).
    """
    totals = np.zeros((len(directions), 2, len(queries)), dtype=np.int64)
    mirrors = {
        direction
        for direction in directions
        if everyone and direction.source is not None and direction.source > direction.target
    }
    for batch in asking:
        leading = None
        if fusion == "leading" and any(direction.source is None for direction in directions):
            leading = leave_one_out_directions(batch.embeddings, batch.present)
        asked = [_Asked(batch, direction, leading) for direction in directions if direction not in mirrors]
        mirrored = {
            direction: batch.embeddings.new_zeros((2, len(queries)), dtype=torch.float64) for direction in mirrors
        }
        for block in gallery():
            places = np.searchsorted(queries, block.rows)
            for one in asked:
                one.count(block, mirrored.get(one.direction.opposite()), places)
        for one in asked:
            totals[directions.index(one.direction)][:, np.searchsorted(queries, one.rows)] += one.found()
        for direction, found in mirrored.items():
            totals[directions.index(direction)] += found.long().cpu().numpy()
    return totals


def _pieces(count: int, most: int) -> Iterator[slice]:
    """Yield slices of ``count`` things, of at most ``most`` each and about equal: a small last one would be slow."""
    pieces = -(-count // most)
    return (shard(count, piece, pieces) for piece in range(pieces))


def _taken(vectors: Tensor, members: Mask) -> Tensor:
    """Return the rows of the members; without a copy where all are."""
    return vectors if members.all() else vectors[torch.from_numpy(members).to(vectors.device)]


def _edges(own: Tensor) -> Tensor:
    """Return, of (q,) scores, the (2, q) ends of the band in which others tie with them: the upper, the lower."""
    return torch.stack([own + TIE_BAND, own - TIE_BAND])


class _Asked:
    """The queries of one batch in one direction, and what was counted for them so far."""

    def __init__(self, batch: Batch, direction: _Direction, leading: Tensor | None) -> None:
        """Take the eligible of a batch.

        Args:
            batch: the instances that ask.
            direction: what they ask.
            leading: (B, K, d), what the others of each modality are fused to; None: candidates weight the others.
        """
        self.direction = direction
        members = direction.eligible(batch.present.cpu().numpy())
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
        self.edges = _edges(self.queries.own(_taken(batch.embeddings[:, direction.target], members)))
        # Whole numbers, exact up to 2^53, that sums of float32 flags add to.
        self.counts = torch.zeros_like(self.edges, dtype=torch.float64)

    def count(self, block: Batch, mirrored: Tensor | None, places: npt.NDArray[np.int64]) -> None:
        """Compare the partners' scores with those of the eligible instances of a block.

        Args:
            block: of the gallery.
            mirrored: (2, Q), takes the counts of the opposite direction, where the block asks and these queries
                answer; None: nobody does.
            places: (B,) of the instances of the block among those Q.
        """
        eligible = self.direction.eligible(block.present.cpu().numpy())
        rows = block.rows[eligible]
        if len(rows) == 0 or len(self.rows) == 0:
            return
        candidates = _taken(block.embeddings[:, self.direction.target], eligible)
        their_edges = their_counts = None
        if mirrored is not None:
            assert self.direction.source is not None
            their_edges = _edges(
                exact_cosines(_taken(block.embeddings[:, self.direction.source], eligible), candidates)
            )
            their_counts = torch.zeros_like(their_edges, dtype=torch.float64)
        partners = np.searchsorted(rows, self.rows)
        partners[rows[np.minimum(partners, len(rows) - 1)] != self.rows] = -1

        scale = _ON_GPU if candidates.is_cuda else 1
        # Sums of whole float flags are exact, and twice as fast as those of booleans; fresh memory is slow.
        scores_of, flags_of = candidates.new_empty(2, scale * _QUERIES * scale * _CANDIDATES)
        pieces = list(_pieces(len(self.rows), scale * _QUERIES))
        for part in _pieces(len(rows), scale * _CANDIDATES):
            for piece in pieces:
                shape = piece.stop - piece.start, part.stop - part.start
                scores, flags = (buffer[: shape[0] * shape[1]].view(shape) for buffer in (scores_of, flags_of))
                self.queries.piece(piece).scores(candidates[part], scores)
                here = np.flatnonzero((partners[piece] >= part.start) & (partners[piece] < part.stop))
                if len(here):
                    scores[torch.from_numpy(here), torch.from_numpy(partners[piece][here] - part.start)] = -torch.inf
                for edge, beyond in enumerate((torch.gt, torch.ge)):
                    beyond(scores, self.edges[edge, piece, None], out=flags)
                    self.counts[edge, piece].add_(flags.sum(1))
                    if their_edges is not None and their_counts is not None:
                        beyond(scores, their_edges[edge, part], out=flags)
                        their_counts[edge, part].add_(flags.sum(0))
        if mirrored is not None and their_counts is not None:
            mirrored[:, torch.from_numpy(places[eligible]).to(mirrored.device)] += their_counts

    def found(self) -> Counts:
        """Return the (2, q) counts: candidates above the partner, and no less than it."""
        found: Counts = self.counts.long().cpu().numpy()
        return found
