"""Held-out retrieval: the one number that chooses settings and stops training."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch import Tensor

from pmrl_cli.retrieval.batches import Batch
from pmrl_cli.retrieval.metrics import hits, reciprocal_ranks
from pmrl_cli.retrieval.ranks import rank_batch

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
        embeddings: (N, K, d) unit vectors where present.
        present: (N, K) bool.
    """
    names = tuple(str(m) for m in range(embeddings.shape[1]))
    batch = Batch(np.arange(len(embeddings)), embeddings, present)
    ranks = [r for r in rank_batch(batch, names, fused=False).values() if r.gallery > 1]
    if not ranks:
        return HeldOut(float("nan"), float("nan"))
    mrr = [float(reciprocal_ranks(r).mean()) for r in ranks]
    r1 = [float(hits(r, 1).mean()) for r in ranks]
    return HeldOut(sum(mrr) / len(mrr), sum(r1) / len(r1))
