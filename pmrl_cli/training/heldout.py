"""Held-out retrieval: the one number that chooses settings and stops training."""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

from torch import Tensor

from pmrl_cli.retrieval.ranks import rank_both_ways

__all__ = ["HELD_OUT_LIMIT", "HeldOut", "held_out_retrieval"]

HELD_OUT_LIMIT = 2000
"""At most this many validation instances are ranked (chosen by hash): beyond it the noise of the choice is small
beside that of the split, and the cost is quadratic."""


class HeldOut(NamedTuple):
    """Means over all ordered pairs of modalities that share at least two instances; NaN if none does."""

    mrr: float
    r1: float


def held_out_retrieval(embeddings: Tensor, present: Tensor) -> HeldOut:
    """Rank every modality against every other.

    Args:
        embeddings: (N, K, d) unit vectors.
        present: (N, K) bool.
    """
    mrr: list[float] = []
    r1: list[float] = []
    for a, b in combinations(range(embeddings.shape[1]), 2):
        both = present[:, a] & present[:, b]
        if int(both.sum()) < 2:
            continue
        for ranks in rank_both_ways(embeddings[both, a], embeddings[both, b]):
            mrr.append(float(ranks.reciprocal().mean()))
            r1.append(float(ranks.hits(1).mean()))
    if not mrr:
        return HeldOut(float("nan"), float("nan"))
    return HeldOut(sum(mrr) / len(mrr), sum(r1) / len(r1))
