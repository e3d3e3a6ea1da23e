"""Exact ranks by blocks: where the best right answer stands among all candidates, for every query and direction.

A direction ``a->b`` asks with the embedding of modality a for the instance's own embedding of modality b. Queries
and gallery are of the same instances, those that have both; what asks and what can be found are the different vectors
among them, and several may be right (``pmrl_cli.retrieval.relevance``). ``others->b`` (three modalities or more) asks
with the instance's other modalities fused, over the instances that have b and at least one other: with their leading
direction, or with the consensus that each candidate weights (``pmrl_cli.fusion``).

Where all instances ask, one to one, the scores of ``a->b`` are those of ``b->a`` transposed: one product serves both.

What a shard of the queries counts, in both directions of such a product, adds up over shards (``count_shard``):
several processes may each take a shard, and the sum of their counts has the ranks of all (``ranks_of``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from pmrl_cli.array_types import Mask
from pmrl_cli.data.dataset import Dataset
from pmrl_cli.data.shards import shard_rows
from pmrl_cli.process_group import SINGLE_PROCESS, ProcessGroup
from pmrl_cli.retrieval.batches import Batch, read_batch
from pmrl_cli.retrieval.counting import (
    BEST,
    COUNTED,
    GREATER,
    NOT_LESS,
    OTHERS,
    PRECISION,
    R_PRECISION,
    Asked,
    Direction,
    pieces,
)
from pmrl_cli.retrieval.relevance import Relevance, Rights
from pmrl_cli.spectrum import leave_one_out_directions

__all__ = [
    "OTHERS",
    "Answers",
    "Counts",
    "Ranks",
    "count_shard",
    "rank_batch",
    "rank_dataset",
    "ranks_of",
]

Counts = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]

_HELD_BYTES = 128 * 2**20
"""Bytes of the vectors of the queries that are held at once: each time, all of the gallery is read again."""

_ANSWER_BYTES = 64
"""Of each right answer of a query that is held: its score, its edges and what was counted."""


class Answers(NamedTuple):
    """What is known of queries that may have several right answers.

    Args:
        right: (q,) int64, right answers.
        best: (q,) int64, those of them that score as the best does, itself included.
        precision: (q,) average precision over all of them, expected under ties.
        r_precision: (q,) share of them among the first ``right`` candidates, expected under ties.
    """

    right: Numbers
    best: Numbers
    precision: Counts
    r_precision: Counts


class Ranks(NamedTuple):
    """Where the best right answers of the queries of one direction stand.

    Args:
        rows: (q,) int64, ascending: the instances that ask.
        greater: (q,) int64, wrong candidates that score above the best right answer.
        tied: (q,) int64, wrong candidates that score as it does.
        gallery: candidates per query, the right ones included.
        answers: where a query may have several right answers; None: one each, its own instance.
    """

    rows: Numbers
    greater: Numbers
    tied: Numbers
    gallery: int
    answers: Answers | None = None


def _directions(count: int, *, fused: bool) -> list[Direction]:
    pairs = [Direction(a, b) for a in range(count) for b in range(count) if a != b]
    # With two modalities "the others" are one modality: the same question again.
    return pairs + ([Direction(None, b) for b in range(count)] if fused and count > 2 else [])


def _rights(directions: Sequence[Direction], relevance: Relevance, present: Mask) -> dict[Direction, Rights]:
    return {one: relevance.rights(one.source, one.target, one.eligible(present), present) for one in directions}


def rank_dataset(
    dataset: Dataset,
    queries: Numbers,
    *,
    relevance: Relevance | None = None,
    fusion: str = "leading",
    processes: ProcessGroup = SINGLE_PROCESS,
) -> dict[str, Ranks]:
    """Rank the right answers of some instances among all instances of a data set.

    Time is that of the matrix products; memory is bounded by the queries that are held at once.

    Args:
        dataset: modalities of one dim.
        queries: ascending rows of the instances that may ask: of those that are one item, the first that is there.
        relevance: what is right; None: for each instance itself alone, whatever vectors are equal.
        fusion: of ``others->b``, one of ``pmrl_cli.fusion.FUSIONS``.
        processes: the processes that ask a shard each, of a data set that all of them have.

    Returns: ranks by direction (``a->b``, ``others->b``); a direction without a query is absent.
    """
    shard = shard_rows(len(queries), processes.rank, processes.size)
    counts = count_shard(dataset, queries, shard, relevance=relevance, fusion=fusion)
    processes.all_reduce(torch.from_numpy(counts))
    return ranks_of(counts, dataset, queries, relevance=relevance)


def count_shard(
    dataset: Dataset,
    queries: Numbers,
    shard: slice,
    *,
    relevance: Relevance | None = None,
    fusion: str = "leading",
) -> Counts:
    """Ask with a shard of the queries among all instances: the counts of disjoint shards add up to those of all.

    Args:
        dataset: modalities of one dim.
        queries: (q,) ascending rows of the instances that may ask, in all shares together.
        shard: which of them ask here.
        relevance: as of ``rank_dataset``.
        fusion: as of ``rank_dataset``.

    Returns: (D, COUNTED, q) for ``ranks_of``. Where all instances ask, a shard also counts for the queries of others,
        in the directions that are read off the scores of the opposite one.
    """
    asking = queries[shard]
    rights = _rights(_directions(len(dataset.names), fused=True), _known(relevance, dataset), dataset.present)
    most = max(int(_counts_of(one, asking).max(initial=1)) for one in rights.values())
    held = max(1, _HELD_BYTES // (4 * sum(dataset.dims) + _ANSWER_BYTES * most))
    return _count(
        (read_batch(dataset, asking[piece]) for piece in pieces(len(asking), held)),
        lambda: (read_batch(dataset, rows) for rows in dataset.blocks()),
        lambda rows: read_batch(dataset, rows),
        rights,
        queries,
        fusion=fusion,
        all_ask=len(queries) == int((dataset.present.sum(1) > 1).sum()),
    )


def ranks_of(
    counts: Counts, dataset: Dataset, queries: Numbers, *, relevance: Relevance | None = None
) -> dict[str, Ranks]:
    """Return the ranks, as ``rank_dataset`` does, from the sum over all shards of what ``count_shard`` returned.

    Args:
        counts: (D, COUNTED, q).
        dataset: the one that was counted in.
        queries: (q,) as they were given to ``count_shard``.
        relevance: as of ``rank_dataset``.
    """
    rights = _rights(_directions(len(dataset.names), fused=True), _known(relevance, dataset), dataset.present)
    return _named(counts, rights, dataset.names, queries)


def rank_batch(
    batch: Batch, names: tuple[str, ...], *, relevance: Relevance | None = None, fused: bool = True
) -> dict[str, Ranks]:
    """Rank the right answers of all instances of a batch within it; as ``rank_dataset``.

    Args:
        batch: the instances, on any device.
        names: of the modalities.
        relevance: of the instances of the batch, in their order; None: each is right for itself alone.
        fused: also ask with the leading direction of the other modalities (``others->b``).
    """
    present = batch.present.cpu().numpy()
    places = np.arange(len(batch.rows))
    local = Batch(places, batch.embeddings, batch.present)
    known = Relevance.of_rows(*present.shape) if relevance is None else relevance
    rights = _rights(_directions(len(names), fused=fused), known, present)

    def lookup(rows: Numbers) -> Batch:
        at = torch.from_numpy(rows).to(batch.embeddings.device)
        return Batch(rows, batch.embeddings[at], batch.present[at])

    counts = _count([local], lambda: [local], lookup, rights, places, fusion="leading", all_ask=True)
    named = _named(counts, rights, names, places)
    return {name: ranks._replace(rows=batch.rows[ranks.rows]) for name, ranks in named.items()}


def _known(relevance: Relevance | None, dataset: Dataset) -> Relevance:
    return Relevance.of_rows(*dataset.present.shape) if relevance is None else relevance


def _places(rights: Rights, rows: Numbers) -> tuple[Mask, Numbers]:
    """Return which of the ascending rows ask, and the places of those among the queries."""
    _, places, at = np.intersect1d(rights.queries, rows, assume_unique=True, return_indices=True)
    asks = np.zeros(len(rows), dtype=np.bool_)
    asks[at] = True
    return asks, places


def _counts_of(rights: Rights, rows: Numbers) -> Numbers:
    """Return how many right answers those of the rows have that ask."""
    return rights.counts(_places(rights, rows)[1])


def _named(
    counts: Counts, rights: Mapping[Direction, Rights], names: Sequence[str], queries: Numbers
) -> dict[str, Ranks]:
    """Return ranks by direction from (D, COUNTED, q)."""
    results = {}
    for found, (direction, known) in zip(counts, rights.items(), strict=True):
        if not len(known.candidates):
            continue
        asks, places = _places(known, queries)
        whole = found[:, asks].astype(np.int64)
        answers = None
        if not known.one_to_one:
            precision, r_precision = found[PRECISION, asks], found[R_PRECISION, asks]
            answers = Answers(known.counts(places), whole[BEST], precision, r_precision)
        greater, tied = whole[GREATER], whole[NOT_LESS] - whole[GREATER]
        results[direction.name(names)] = Ranks(queries[asks], greater, tied, len(known.candidates), answers)
    return results


def _count(
    asking: Iterable[Batch],
    gallery: Callable[[], Iterable[Batch]],
    lookup: Callable[[Numbers], Batch],
    rights: Mapping[Direction, Rights],
    queries: Numbers,
    *,
    fusion: str,
    all_ask: bool,
) -> Counts:
    """Count the wrong candidates that score above a right answer, and those that score no less.

    Args:
        asking: the instances that ask.
        gallery: gives all instances, block by block.
        lookup: gives the instances of ascending rows.
        rights: what is asked, and what is right.
        queries: (q,) ascending rows that may ask, here or elsewhere.
        fusion: of ``others->b``.
        all_ask: whether those are all instances that can, so that two directions can share their scores.

    Returns: (D, COUNTED, q).
    """
    directions = list(rights)
    totals = np.zeros((len(directions), COUNTED, len(queries)))
    mirrors = {
        one
        for one in directions
        if all_ask and one.source is not None and one.source > one.target and rights[one].one_to_one
    }
    for batch in asking:
        leading = None
        if fusion == "leading" and any(direction.source is None for direction in directions):
            leading = leave_one_out_directions(batch.embeddings, batch.present)
        asked = [Asked(batch, one, rights[one], leading, lookup) for one in directions if one not in mirrors]
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
            totals[directions.index(direction)][: NOT_LESS + 1] += found.cpu().numpy()
    return totals
