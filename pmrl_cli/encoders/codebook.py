"""A codebook that modalities share: codes that follow the vectors nearest to them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Codebook"]

SMOOTHING = 1e-5
OWN = 0.5
"""Share of a vector itself in what its code learns; the rest is the mean of the instance's other modalities."""


class Codebook(nn.Module):
    """Codes (N, d) of which each vector has the nearest; they follow the vectors of all modalities, not a gradient.

    Args:
        count: codes N.
        dim: columns d.
        decay: of the moving averages, in (0, 1).
        patience: steps without a vector after which a code starts again at a vector of the batch.
    """

    codes: Tensor
    uses: Tensor
    sums: Tensor
    idle: Tensor

    def __init__(self, count: int, dim: int, *, decay: float = 0.99, patience: int = 20) -> None:
        super().__init__()
        self.decay, self.patience = decay, patience
        start = functional.normalize(torch.randn(count, dim), dim=1)
        self.register_buffer("codes", start)
        self.register_buffer("uses", torch.ones(count))
        self.register_buffer("sums", start.clone())
        # What the first batch does not use starts at one of its vectors.
        self.register_buffer("idle", torch.full((count,), float(patience)))

    def squared_distances(self, vectors: Tensor) -> Tensor:
        """Return (..., N) squared Euclidean distances of (..., d) vectors to all codes."""
        products = vectors @ self.codes.mT
        return (self.codes.square().sum(1) - 2 * products + vectors.square().sum(-1, keepdim=True)).clamp_min(0)

    def nearest(self, vectors: Tensor) -> Tensor:
        """Return (...) int64 the nearest code of (..., d) vectors."""
        return self.squared_distances(vectors.detach()).argmin(-1)

    def quantised(self, vectors: Tensor, nearest: Tensor) -> Tensor:
        """Return (..., d) the codes of vectors; a gradient passes through them to the vectors."""
        return vectors + (self.codes[nearest] - vectors).detach()

    @torch.no_grad()
    def learn(self, vectors: Tensor, nearest: Tensor, present: Tensor) -> None:
        """Move the codes by one batch, the whole of it.

        Each average decays once a step, whatever the number of modalities. A code's vector is half that of the
        modality that uses it and half the mean of the instance's other ones. A code that starts again takes new
        averages with it: with the old ones the next step would undo it.

        Args:
            vectors: (B, K, d), anything finite where absent.
            nearest: (B, K) code of each.
            present: (B, K) bool.
        """
        if len(vectors) == 0:
            return
        vectors = vectors.detach().masked_fill(~present[..., None], 0)
        others = present.sum(1)[:, None, None] - 1
        mean_of_others = (vectors.sum(1, keepdim=True) - vectors) / others.clamp_min(1)
        shared = torch.where(others > 0, OWN * vectors + (1 - OWN) * mean_of_others, vectors)
        hits = functional.one_hot(nearest, len(self.codes)).to(vectors.dtype) * present[..., None]
        hits = hits.flatten(0, 1)
        used = hits.sum(0)
        self.uses.mul_(self.decay).add_((1 - self.decay) * used)
        self.sums.mul_(self.decay).add_((1 - self.decay) * (hits.mT @ shared.flatten(0, 1)))
        total = self.uses.sum()
        smoothed = (self.uses + SMOOTHING) / (total + len(self.codes) * SMOOTHING) * total
        self.codes = self.sums / smoothed[:, None]  # a new one: the graph of the loss holds the old
        self.idle.add_(1).mul_(used == 0)
        self._restart(vectors.flatten(0, 1), present.flatten())

    def _restart(self, vectors: Tensor, present: Tensor) -> None:
        dead = self.idle > self.patience
        # Drawn for all codes, whether they need one or not: how many do, only the device knows.
        chances = present.to(vectors.dtype) + torch.finfo(vectors.dtype).tiny
        drawn = vectors[torch.multinomial(chances, len(self.codes), replacement=True)]
        alive = (~dead).sum().clamp_min(1)
        weight = ((self.uses * ~dead).sum() / alive).clamp_min(SMOOTHING)
        self.codes = torch.where(dead[:, None], drawn, self.codes)
        self.sums.copy_(torch.where(dead[:, None], drawn * weight, self.sums))
        self.uses.copy_(torch.where(dead, weight, self.uses))
        self.idle.mul_(~dead)
