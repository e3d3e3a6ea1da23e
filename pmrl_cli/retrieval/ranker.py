"""Ranks of a few thousand instances in one piece, again and again: what is right is looked up once.

What ``rank_batch`` finds tile by tile for any number of instances, without precision, which no choice reads. One
product of two modalities serves both directions.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pmrl_cli.retrieval.counting import TIE_BAND, Direction
from pmrl_cli.retrieval.queries import exact_cosines
from pmrl_cli.retrieval.ranks import Answers, Ranks
from pmrl_cli.retrieval.relevance import Relevance, Rights

__all__ = ["Ranker"]


@dataclass(frozen=True)
class _Asked:
    """What one direction asks, as tensors.

    Args:
        rows: (q,) that ask.
        queries: (q,) the same.
        candidates: (c,) rows that can be found.
        asking: (p,) places of right pairs among the queries, ascending.
        right: (p,) places of their answers among the candidates.
        several: (q,) how many right answers each has; None: one each, in the order of the queries.
    """

    rows: npt.NDArray[np.int64]
    queries: Tensor
    candidates: Tensor
    asking: Tensor
    right: Tensor
    several: npt.NDArray[np.int64] | None

    @staticmethod
    def of(rights: Rights) -> _Asked:
        pairs = rights.pairs(np.arange(len(rights.queries)))
        several = None if rights.one_to_one else np.bincount(pairs.queries, minlength=len(rights.queries))
        queries, candidates = torch.from_numpy(rights.queries), torch.from_numpy(rights.candidates)
        asking, right = torch.from_numpy(pairs.queries), torch.from_numpy(pairs.answers)
        return _Asked(rights.queries, queries, candidates, asking, right, several)


class Ranker:
    """Ranks every modality of some instances against every other, as often as there are embeddings of them.

    Args:
        present: (n, K) which modalities the instances have.
        relevance: what is right for which.
    """

    def __init__(self, present: npt.NDArray[np.bool_], relevance: Relevance) -> None:
        self._asked: dict[Direction, _Asked] = {}
        for a, b in combinations(range(present.shape[1]), 2):
            for one in (Direction(a, b), Direction(b, a)):
                rights = relevance.rights(one.source, one.target, one.eligible(present), present)
                if len(rights.candidates) > 1:
                    self._asked[one] = _Asked.of(rights)

    def __call__(self, embeddings: Tensor) -> list[Ranks]:
        """Return the ranks of each direction with two candidates or more, in the order of its modalities.

        Args:
            embeddings: (n, K, d) unit vectors where present.
        """
        found: dict[Direction, Ranks] = {}
        for one, asked in self._asked.items():
            if one in found:
                continue
            asking = _vectors(embeddings, one.source, asked.queries)
            answering = _vectors(embeddings, one.target, asked.candidates)
            scores = asking @ answering.mT
            found[one] = _ranks(asked, scores, asking, answering)
            back = self._asked.get(one.opposite())
            if back is not None and asked.several is None and back.several is None:
                found[one.opposite()] = _ranks(back, scores.mT, answering, asking)
        return [found[one] for one in sorted(found, key=lambda one: (one.source, one.target))]


def _vectors(embeddings: Tensor, modality: int | None, rows: Tensor) -> Tensor:
    vectors = embeddings[:, modality]
    return vectors if len(rows) == len(vectors) else vectors[rows.to(vectors.device)]


def _ranks(asked: _Asked, scores: Tensor, queries: Tensor, candidates: Tensor) -> Ranks:
    """Return the ranks of one direction from its (q, c) scores, those of right answers set to minus infinity."""
    asking, right = asked.asking.to(scores.device), asked.right.to(scores.device)
    if asked.several is None:
        best, ties = exact_cosines(queries, candidates), None
    else:
        own = exact_cosines(queries[asking], candidates[right])
        best = own.new_full((len(queries),), -torch.inf).scatter_reduce(0, asking, own, "amax")
        ties = torch.zeros_like(best).index_add(0, asking, (own >= (best - TIE_BAND)[asking]).to(own.dtype))
    scores[asking, right] = -torch.inf
    greater = (scores > (best + TIE_BAND)[:, None]).sum(1)
    not_less = (scores >= (best - TIE_BAND)[:, None]).sum(1)
    answers = None
    if asked.several is not None and ties is not None:
        unknown = np.full(len(best), np.nan)
        answers = Answers(asked.several, ties.cpu().numpy().astype(np.int64), unknown, unknown)
    above = greater.cpu().numpy()
    return Ranks(asked.rows, above, not_less.cpu().numpy() - above, len(candidates), answers)
