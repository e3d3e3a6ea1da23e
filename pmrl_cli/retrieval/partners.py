"""Ranks of partners one to one, where every instance that has both modalities asks: nothing right is looked up.

What ``rank_batch`` finds of instances without relevance. One product serves both directions of a pair, and one of a
modality with itself all that its partners are compared with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, permutations

import numpy as np
import torch
from torch import Tensor

from pmrl_cli.retrieval.batches import Batch
from pmrl_cli.retrieval.counting import pieces
from pmrl_cli.retrieval.queries import exact_cosines
from pmrl_cli.retrieval.ranks import Ranks
from pmrl_cli.retrieval.tally import Tally

__all__ = ["PairRanks", "mixed_ranks", "partner_ranks", "ranks_one_way"]

PairRanks = Mapping[tuple[int, int], Ranks]
"""By (asking, answering) modality."""

_TILE = 512  # with as many candidates, 1 MB of products and 1 MB of flags: they stay in the cache of a core


def _count(queries: Tensor, candidates: Tensor, by_query: Sequence[Tally], by_candidate: Sequence[Tally]) -> None:
    """Count all products of (n, d) queries and (n, d) candidates; of a modality with itself each is taken once."""
    same = queries is candidates
    parts = list(pieces(len(queries), _TILE))
    memory = queries.new_empty(2, _TILE * _TILE)  # fresh memory is slow
    for i, row in enumerate(parts):
        for column in parts[i:] if same else parts:
            shape = row.stop - row.start, column.stop - column.start
            products, flags = (one[: shape[0] * shape[1]].view(shape) for one in memory)
            torch.mm(queries[row], candidates[column].mT, out=products)
            if row == column:
                products.fill_diagonal_(-torch.inf)
            for one in by_query:
                one.add(products, row, by=1, flags=flags)
                if same and row != column:
                    one.add(products, column, by=0, flags=flags)
            for one in by_candidate:
                one.add(products, column, by=0, flags=flags)


def ranks_one_way(queries: Tensor, candidates: Tensor) -> Ranks:
    """Return the ranks of candidate i for query i: (n, d) vectors each; rows count them."""
    counts = Tally(exact_cosines(queries, candidates))
    _count(queries, candidates, [counts], [])
    return Ranks(np.arange(len(queries)), *counts.greater_and_tied(), len(queries))


def partner_ranks(batch: Batch) -> PairRanks:
    """Return the ranks of partners for every two modalities, both ways; a pair that no instance has is absent.

    Args:
        batch: unit vectors, or others whose inner products are compared; rows of the ranks count its instances.
    """
    found: dict[tuple[int, int], Ranks] = {}
    for a, b in combinations(range(batch.present.shape[1]), 2):
        both = batch.present[:, [a, b]].all(1)
        rows = np.flatnonzero(both.numpy())
        if not len(rows):
            continue
        first, second = _taken(batch, a, both), _taken(batch, b, both)
        own = exact_cosines(first, second)
        forth, back = Tally(own), Tally(own)
        _count(first, second, [forth], [back])
        found[a, b], found[b, a] = (Ranks(rows, *one.greater_and_tied(), len(rows)) for one in (forth, back))
    return {pair: found[pair] for pair in sorted(found)}


def mixed_ranks(batch: Batch, ranks: PairRanks) -> PairRanks:
    """Return the ranks of partners among the instances of both modalities of a pair, the query left out.

    Args:
        batch: unit vectors.
        ranks: of its partners among those of their own modality.
    """
    found: dict[tuple[int, int], Ranks] = {}
    for a in range(batch.present.shape[1]):
        alike: dict[bytes, list[int]] = {}
        for b in [b for b in range(batch.present.shape[1]) if (a, b) in ranks]:
            alike.setdefault(ranks[a, b].rows.tobytes(), []).append(b)
        for others in alike.values():
            both = batch.present[:, [a, others[0]]].all(1)
            queries = _taken(batch, a, both)
            counts = [Tally(exact_cosines(queries, _taken(batch, b, both))) for b in others]
            _count(queries, queries, counts, [])
            for b, one in zip(others, counts, strict=True):
                pure, (greater, tied) = ranks[a, b], one.greater_and_tied()
                found[a, b] = Ranks(pure.rows, pure.greater + greater, pure.tied + tied, 2 * pure.gallery - 1)
    return {pair: found[pair] for pair in permutations(range(batch.present.shape[1]), 2) if pair in found}


def _taken(batch: Batch, modality: int, which: Tensor) -> Tensor:
    """Return the vectors of a modality of some instances; without a copy where those are all."""
    vectors = batch.embeddings[:, modality]
    return vectors if which.all() else vectors[which]
