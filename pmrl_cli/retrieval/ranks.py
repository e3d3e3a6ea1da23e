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
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pmrl_cli.data.dataset import Dataset
from pmrl_cli.retrieval.batches import Batch, read_batch
from pmrl_cli.retrieval.queries import Consensus, Vectors, exact_cosines
from pmrl_cli.spectrum import leave_one_out_directions

__all__ = ["OTHERS", "TIE_BAND", "Ranks", "rank_batch", "rank_dataset"]

TIE_BAND = 2e-6
"""Cosines closer than this tie: ten times the rounding of a float32 product of 512 columns."""

OTHERS = "others"
"""Source of a fused query, in the name of a direction."""

_QUERIES = 2048  # with 512 candidates, 4 MB of scores: they stay in cache
_CANDIDATES = 512


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

    def eligible(self, present: Tensor) -> Tensor:
        if self.source is None:
            return present[:, self.target] & (present.sum(1) > 1)
        return present[:, self.source] & present[:, self.target]

    def opposite(self) -> _Direction:
        return self if self.source is None else _Direction(self.target, self.source)


def _directions(count: int, *, fused: bool) -> list[_Direction]:
    pairs = [_Direction(a, b) for a in range(count) for b in range(count) if a != b]
    # With two modalities "the others" are one modality: the same question again.
    return pairs + ([_Direction(None, b) for b in range(count)] if fused and count > 2 else [])


def rank_dataset(dataset: Dataset, queries: npt.NDArray[np.int64], *, fusion: str = "leading") -> dict[str, Ranks]:
    """Rank the partners of some instances among all instances of a data set.

    Time is that of the matrix products; memory is bounded by one block of queries against one of candidates.

    Args:
        dataset: modalities of one dim.
        queries: ascending rows of the instances that ask.
        fusion: of ``others->b``, one of ``pmrl_cli.fusion.FUSIONS``.

    Returns: ranks by direction (``a->b``, ``others->b``); a direction nobody can ask is absent.
    """
    pieces = (read_batch(dataset, queries[start : start + _QUERIES]) for start in range(0, len(queries), _QUERIES))

    def gallery() -> Iterable[Batch]:
        for rows in dataset.blocks():
            yield from read_batch(dataset, rows).split(_CANDIDATES)

    everyone = len(queries) == int((dataset.present.sum(1) > 1).sum())
    return _rank(pieces, gallery, dataset.names, fusion=fusion, mirror_size=len(dataset) if everyone else 0)


def rank_batch(batch: Batch, names: tuple[str, ...], *, fused: bool = True) -> dict[str, Ranks]:
    """Rank the partners of all instances of a batch within it; as ``rank_dataset``.

    Args:
        batch: the instances, on any device.
        names: of the modalities.
        fused: also ask with the leading direction of the other modalities (``others->b``).
    """
    size = int(batch.rows[-1]) + 1 if len(batch.rows) else 0
    fusion = "leading" if fused else None
    return _rank(batch.split(_QUERIES), lambda: batch.split(_CANDIDATES), names, fusion=fusion, mirror_size=size)


def _rank(
    queries: Iterable[Batch],
    gallery: Callable[[], Iterable[Batch]],
    names: tuple[str, ...],
    *,
    fusion: str | None,
    mirror_size: int,
) -> dict[str, Ranks]:
    """Rank.

    Args:
        queries: the instances that ask.
        gallery: gives all instances, block by block.
        names: of the modalities.
        fusion: of ``others->b``; None: those directions are not asked.
        mirror_size: one more than the largest row if everyone asks, else 0.
    """
    directions = _directions(len(names), fused=fusion is not None)
    mirrors = {
        direction: _Mirror(mirror_size)
        for direction in directions
        if mirror_size and direction.source is not None and direction.source > direction.target
    }
    found: dict[_Direction, list[Ranks]] = {direction: [] for direction in directions if direction not in mirrors}
    for batch in queries:
        leading = None
        if fusion == "leading" and len(names) > 2:
            leading = leave_one_out_directions(batch.embeddings, batch.present)
        asked = {direction: _Asked(batch, direction, leading) for direction in found}
        for block in gallery():
            for direction, one in asked.items():
                one.count(block, mirrors.get(direction.opposite()))
        for direction, one in asked.items():
            found[direction].append(one.ranks())
    results = {}
    for direction in directions:
        parts = found[direction.opposite() if direction in mirrors else direction]
        if parts and parts[0].gallery:
            rows, greater, tied = (np.concatenate([part[i] for part in parts]) for i in range(3))
            if direction in mirrors:
                greater, tied = mirrors[direction].counts(rows)
            source = OTHERS if direction.source is None else names[direction.source]
            results[f"{source}->{names[direction.target]}"] = Ranks(rows, greater, tied, parts[0].gallery)
    return results


class _Mirror:
    """What was counted for a direction from the scores of the opposite one, by row of the data set."""

    def __init__(self, size: int) -> None:
        self.greater = np.zeros(size, dtype=np.int64)
        self.not_less = np.zeros(size, dtype=np.int64)

    def counts(self, rows: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return how many were greater and how many tied."""
        return self.greater[rows], self.not_less[rows] - self.greater[rows]


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
        members = direction.eligible(batch.present)
        self.rows = batch.rows[members.cpu().numpy()]
        self.queries: Vectors | Consensus
        if direction.source is not None:
            self.queries = Vectors(batch.embeddings[members, direction.source])
        elif leading is not None:
            self.queries = Vectors(leading[members, direction.target])
        else:
            others = [m for m in range(batch.present.shape[1]) if m != direction.target]
            self.queries = Consensus(batch.embeddings[members][:, others], batch.present[members][:, others])
        self.own = self.queries.own(batch.embeddings[members, direction.target])[:, None]
        self.greater = torch.zeros(len(self.rows), dtype=torch.int64, device=batch.present.device)
        self.not_less = torch.zeros_like(self.greater)
        self.gallery = 0

    def count(self, block: Batch, mirror: _Mirror | None) -> None:
        """Compare the partners' scores with those of the eligible instances of a block.

        Args:
            block: of the gallery.
            mirror: takes the counts of the opposite direction, where the block asks and these queries answer.
        """
        eligible = self.direction.eligible(block.present)
        size = int(eligible.sum())
        self.gallery += size
        if size == 0 or len(self.rows) == 0:
            return
        candidates = block.embeddings[:, self.direction.target]
        candidates = candidates if size == len(eligible) else candidates[eligible]
        scores = self.queries.scores(candidates)
        rows = block.rows[eligible.cpu().numpy()]
        position = np.searchsorted(rows, self.rows)
        here = np.flatnonzero(rows[np.minimum(position, size - 1)] == self.rows)
        scores[torch.from_numpy(here), torch.from_numpy(position[here])] = -torch.inf
        # Comparing into a float buffer and summing it is twice as fast as summing booleans.
        flags = torch.empty_like(scores)
        self.greater += torch.gt(scores, self.own + TIE_BAND, out=flags).sum(1).long()
        self.not_less += torch.ge(scores, self.own - TIE_BAND, out=flags).sum(1).long()
        if mirror is not None:
            own = exact_cosines(block.embeddings[eligible, self.direction.source], candidates)
            mirror.greater[rows] += torch.gt(scores, own + TIE_BAND, out=flags).sum(0).long().cpu().numpy()
            mirror.not_less[rows] += torch.ge(scores, own - TIE_BAND, out=flags).sum(0).long().cpu().numpy()

    def ranks(self) -> Ranks:
        """Return what was counted."""
        greater, not_less = self.greater.cpu().numpy(), self.not_less.cpu().numpy()
        return Ranks(self.rows, greater, not_less - greater, self.gallery)
