"""What asks: one vector for each query, or several modalities that every candidate weights for itself."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pmrl_cli.fusion import weighted_scores

__all__ = ["Consensus", "Vectors", "exact_cosines"]


def exact_cosines(queries: Tensor, partners: Tensor) -> Tensor:
    """Return the (q,) scores of the partners, free of the rounding of a float32 product."""
    return (queries.double() * partners.double()).sum(1).float()


class Vectors(NamedTuple):
    """Queries of one unit vector each: (q, d)."""

    vectors: Tensor

    def scores(self, candidates: Tensor) -> Tensor:
        """Return the (q, c) scores of (c, d) candidates."""
        return self.vectors @ candidates.mT

    def own(self, partners: Tensor) -> Tensor:
        """Return the (q,) scores of one candidate each."""
        return exact_cosines(self.vectors, partners)


class Consensus(NamedTuple):
    """Queries of several modalities each, which the candidate weights: (q, K, d) and (q, K) bool."""

    embeddings: Tensor
    present: Tensor

    def scores(self, candidates: Tensor) -> Tensor:
        """Return the (q, c) scores of (c, d) candidates; of cosines, no more at once than there are scores."""
        scores = candidates.new_empty(len(self.embeddings), len(candidates))
        step = max(1, len(scores) // self.present.shape[1])
        for start in range(0, len(scores), step):
            piece = self.embeddings[start : start + step]
            cosines = (piece.flatten(0, 1) @ candidates.mT).view(*piece.shape[:2], -1)
            scores[start : start + step] = weighted_scores(
                cosines, torch.bmm(piece, piece.mT), self.present[start : start + step]
            )
        return scores

    def own(self, partners: Tensor) -> Tensor:
        """Return the (q,) scores of one candidate each."""
        embeddings = self.embeddings.double()
        cosines = embeddings @ partners.double()[..., None]
        return weighted_scores(cosines, torch.bmm(embeddings, embeddings.mT), self.present)[:, 0].float()
