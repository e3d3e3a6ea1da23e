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

from pmrl_cli.retrieval.counting import Direction
from pmrl_cli.retrieval.queries import exact_cosines
from pmrl_cli.retrieval.ranks import Answers, Ranks
from pmrl_cli.retrieval.relevance import Relevance, Rights
from pmrl_cli.retrieval.tally import TIE_BAND, Tally

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

    @torch.no_grad()
    def __call__(self, embeddings: Tensor) -> list[Ranks]:
        """Return the ranks of each direction with two candidates or more, in the order of its modalities.

        Args:
            embeddings: (n, K, d) unit vectors where present.
        """
        found: dict[Direction, Ranks] = {}
        by_modality = embeddings.transpose(0, 1).contiguous()
        for one, asked in self._asked.items():
            if one in found:
                continue
            asking = _rows(by_modality[one.source], asked.queries)
            answering = _rows(by_modality[one.target], asked.candidates)
            scores = asking @ answering.mT
            found[one], best = _ranks(asked, scores, asking, answering)
            back = self._asked.get(one.opposite())
            if back is not None and asked.several is None and back.several is None:
                # One answer each way, the same pairs: their scores are those of before, and are set already.
                found[one.opposite()] = _counted(back, scores, best, by=0)
        return [found[one] for one in sorted(found, key=lambda one: (one.source, one.target))]


def _rows(vectors: Tensor, rows: Tensor) -> Tensor:
    return vectors if len(rows) == len(vectors) else vectors[rows.to(vectors.device)]


def _ranks(asked: _Asked, scores: Tensor, queries: Tensor, candidates: Tensor) -> tuple[Ranks, Tensor]:
    """Return the ranks of one direction from its (q, c) scores, and the (q,) score of the best right answer.

    The scores of right answers are set to minus infinity.
    """
    asking, right = asked.asking.to(scores.device), asked.right.to(scores.device)
    if asked.several is None:
        best, answers = exact_cosines(queries, candidates), None
    else:
        own = exact_cosines(queries[asking], candidates[right])
        best = own.new_full((len(queries),), -torch.inf).scatter_reduce(0, asking, own, "amax")
        ties = torch.zeros_like(best).index_add(0, asking, (own >= (best - TIE_BAND)[asking]).to(own.dtype))
        unknown = np.full(len(best), np.nan)
        answers = Answers(asked.several, ties.cpu().numpy().astype(np.int64), unknown, unknown)
    scores[asking, right] = -torch.inf
    return _counted(asked, scores, best, by=1, answers=answers), best


def _counted(asked: _Asked, scores: Tensor, best: Tensor, *, by: int, answers: Answers | None = None) -> Ranks:
    """Return the ranks, from scores whose dimension ``by`` is that of the candidates."""
    tally = Tally(best)
    tally.add(scores, by=by)
    return Ranks(asked.rows, *tally.greater_and_tied(), scores.shape[by], answers)
