"""Query types: single vectors, or several modalities that every candidate weights for itself."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pmrl_cli.fusion import weighted_scores

__all__ = ["Consensus", "Vectors", "exact_cosines"]

_AT_ONCE = 256


def exact_cosines(queries: Tensor, partners: Tensor) -> Tensor:
    """Return the (q,) scores of the partners, free of the rounding of a float32 product."""
    # A few at a time: a float64 copy of all of them would leave the cache.
    scores = queries.new_empty(len(queries))
    for start in range(0, len(queries), _AT_ONCE):
        piece = slice(start, start + _AT_ONCE)
        scores[piece] = queries[piece].double().mul_(partners[piece]).sum(1)
    return scores


class Vectors(NamedTuple):
    """Queries of one unit vector each: (q, d)."""

    vectors: Tensor

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.vectors.device

    def piece(self, rows: slice | Tensor) -> Vectors:
        """Return some of the queries."""
        return Vectors(self.vectors[rows])

    def scores(self, candidates: Tensor, out: Tensor) -> None:
        """Write the (q, c) scores of (c, d) candidates to ``out``."""
        torch.mm(self.vectors, candidates.mT, out=out)

    def own(self, partners: Tensor) -> Tensor:
        """Return the (q,) scores of one candidate each."""
        return exact_cosines(self.vectors, partners)


class Consensus(NamedTuple):
    """Queries of several modalities each, which the candidate weights: (q, K, d) and (q, K) bool."""

    embeddings: Tensor
    present: Tensor

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.embeddings.device

    def piece(self, rows: slice | Tensor) -> Consensus:
        """Return some of the queries."""
        return Consensus(self.embeddings[rows], self.present[rows])

    def scores(self, candidates: Tensor, out: Tensor) -> None:
        """Write the (q, c) scores of (c, d) candidates to ``out``; of cosines, hold no more than those."""
        step = max(1, len(out) // self.present.shape[1])
        for start in range(0, len(out), step):
            piece = self.embeddings[start : start + step]
            cosines = (piece.flatten(0, 1) @ candidates.mT).view(*piece.shape[:2], -1)
            out[start : start + step] = weighted_scores(
                cosines, torch.bmm(piece, piece.mT), self.present[start : start + step]
            )

    def own(self, partners: Tensor) -> Tensor:
        """Return the (q,) scores of one candidate each."""
        embeddings = self.embeddings.double()
        cosines = embeddings @ partners.double()[..., None]
        return weighted_scores(cosines, torch.bmm(embeddings, embeddings.mT), self.present)[:, 0].float()
