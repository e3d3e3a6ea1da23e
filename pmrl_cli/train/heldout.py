"""Held-out retrieval: the one number that chooses settings and stops training."""

from __future__ import annotations

from functools import lru_cache
from itertools import permutations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pmrl_cli.retrieval.metrics import hits, reciprocal_ranks
from pmrl_cli.retrieval.ranker import Ranker
from pmrl_cli.retrieval.ranks import Ranks
from pmrl_cli.retrieval.relevance import Relevance
from pmrl_cli.spectrum import spectrum

__all__ = [
    "HELD_OUT_LIMIT",
    "HeldOut",
    "ValidationSet",
    "chance_of",
    "held_out_retrieval",
    "mean_rho",
    "reciprocal_ranks_by_instance",
]

HELD_OUT_LIMIT = 2000
"""At most this many validation instances are ranked (chosen by hash): beyond it the noise of the choice is small
beside that of the split, and the cost is quadratic."""


class HeldOut(NamedTuple):
    """Means over all ordered pairs of modalities that share at least two instances; NaN if none does."""

    mrr: float
    r1: float


class ValidationSet(NamedTuple):
    """The instances that choose.

    Args:
        rows: (N,) row numbers, ascending.
        relevance: of them: what is right for which, as in ``pmrl evaluate``.
        labels: (N,) classes that say which answers are right, -1 where unknown; None where pairs do.
    """

    rows: npt.NDArray[np.int64]
    relevance: Relevance
    labels: npt.NDArray[np.int64] | None = None

    def part(self, rows: npt.NDArray[np.int64]) -> ValidationSet:
        """Return those with the row numbers, which ascend and are among its own."""
        at = np.searchsorted(self.rows, rows)
        return ValidationSet(rows, self.relevance.take(at), None if self.labels is None else self.labels[at])


@lru_cache(maxsize=8)
def _ranker(relevance: Relevance, present: bytes, modalities: int) -> Ranker:
    return Ranker(np.frombuffer(present, dtype=np.bool_).reshape(-1, modalities), relevance)


def _ranks(embeddings: Tensor, present: Tensor, relevance: Relevance | None) -> list[Ranks]:
    who = present.cpu().numpy()
    return _ranker(relevance or Relevance.of_rows(*who.shape), who.tobytes(), who.shape[1])(embeddings)


def held_out_retrieval(
    embeddings: Tensor,
    present: Tensor,
    labels: npt.NDArray[np.int64] | None = None,
    relevance: Relevance | None = None,
) -> HeldOut:
    """Rank every modality against every other.

    Args:
        embeddings: (N, K, d) unit vectors where present.
        present: (N, K) bool.
        labels: (N,) classes, -1 where unknown: right for a query is what has its class, in place of its own instance.
        relevance: where there are no labels, what is right for which; None: each instance for itself alone.
    """
    if labels is not None:
        return _class_retrieval(embeddings, present, torch.from_numpy(labels).to(present.device))
    ranks = _ranks(embeddings, present, relevance)
    if not ranks:
        return HeldOut(float("nan"), float("nan"))
    mrr = [float(reciprocal_ranks(r).mean()) for r in ranks]
    r1 = [float(hits(r, 1).mean()) for r in ranks]
    return HeldOut(sum(mrr) / len(mrr), sum(r1) / len(r1))


def chance_of(present: Tensor) -> float:
    """Return the mean reciprocal rank of a random order, mean over the same pairs; NaN if there are none.

    Of n candidates, one of which is right, it is (1 + 1/2 + ... + 1/n) / n.

    Args:
        present: (N, K) bool.
    """
    galleries = [int((present[:, m] & present[:, n]).sum()) for m, n in permutations(range(present.shape[1]), 2)]
    each = [float(np.sum(1 / np.arange(1, n + 1)) / n) for n in galleries if n > 1]
    return sum(each) / len(each) if each else float("nan")


def _class_retrieval(embeddings: Tensor, present: Tensor, labels: Tensor) -> HeldOut:
    """Return the retrieval of a first candidate of the query's class; ties go to candidates of other classes."""
    known = present & (labels >= 0)[:, None]
    reciprocal, first = [], []
    for m, n in permutations(range(present.shape[1]), 2):
        asking, found = known[:, m], known[:, n]
        cosines = embeddings[asking, m] @ embeddings[found, n].mT
        same = labels[asking][:, None] == labels[found]
        answered = same.any(1)
        if not bool(answered.any()):
            continue
        best = cosines.masked_fill(~same, -torch.inf).amax(1, keepdim=True)
        ranks = 1 + ((cosines >= best) & ~same).sum(1)[answered]
        reciprocal.append(float(ranks.reciprocal().mean()))
        first.append(float((ranks == 1).double().mean()))
    if not reciprocal:
        return HeldOut(float("nan"), float("nan"))
    return HeldOut(sum(reciprocal) / len(reciprocal), sum(first) / len(first))


def reciprocal_ranks_by_instance(
    embeddings: Tensor, present: Tensor, relevance: Relevance | None = None
) -> npt.NDArray[np.float64]:
    """Return (N,) what each instance contributes to ``held_out_retrieval``: their mean is its mean reciprocal rank.

    Of instances with equal vectors the first contributes for all.

    Args:
        embeddings: (N, K, d) unit vectors where present.
        present: (N, K) bool.
        relevance: what is right for which; None: each instance for itself alone.
    """
    ranks = _ranks(embeddings, present, relevance)
    values = np.zeros(len(embeddings))
    for found in ranks:
        values[found.rows] += reciprocal_ranks(found) * (len(values) / len(found.rows) / len(ranks))
    return values


def mean_rho(embeddings: Tensor, present: Tensor) -> float:
    """Return the mean over instances of sigma_1^2 / k_i, in (0, 1].

    Args:
        embeddings: (N, K, d) unit vectors where present.
        present: (N, K) bool.
    """
    squared = spectrum(embeddings, present).singular_values[:, 0].square()
    return float((squared / present.sum(dim=1).clamp_min(1)).mean())
