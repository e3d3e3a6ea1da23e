"""Adapters: the light trained maps from a modality's scores to the shared space.

An adapter is linear, or linear plus a residual MLP whose output layer starts at zero. Both start exactly at the
closed-form map, which weight decay then pulls towards: what is decayed is the departure from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Adapter", "Adapters"]


class Adapter(nn.Module):
    """One modality's map from (B, p) scores to (B, d) outputs (not yet unit length).

    y = dropout(h) (W0 + D) + W2 GELU(W1 dropout(h) + b1), with D = W2 = 0 at the start.

    Args:
        start: (p, d) W0, the closed-form map.
        hidden: width of the residual MLP; 0 leaves the adapter linear.
        dropout: share of scores zeroed in training, in [0, 1).
    """

    start: Tensor

    def __init__(self, start: Tensor, *, hidden: int, dropout: float) -> None:
        super().__init__()
        inputs, outputs = start.shape
        self.register_buffer("start", start)
        self.departure = nn.Parameter(torch.zeros(inputs, outputs))
        self.dropout = dropout
        self.enter = nn.Linear(inputs, hidden) if hidden else None
        self.leave = nn.Linear(hidden, outputs, bias=False) if hidden else None
        if self.leave is not None:
            nn.init.zeros_(self.leave.weight)

    def forward(self, scores: Tensor) -> Tensor:
        """Return (B, d) outputs for (B, p) scores."""
        scores = functional.dropout(scores, self.dropout, self.training)
        outputs = scores @ (self.start + self.departure)
        if self.enter is not None and self.leave is not None:
            outputs = outputs + self.leave(functional.gelu(self.enter(scores)))
        return outputs

    def merged(self) -> dict[str, Tensor]:
        """Return the weights as they are stored: the linear map in one piece, then those of the residual branch."""
        tensors = {"weight": (self.start + self.departure).detach()}
        if self.enter is not None and self.leave is not None:
            tensors |= {
                "enter.weight": self.enter.weight.detach(),
                "enter.bias": self.enter.bias.detach(),
                "leave.weight": self.leave.weight.detach(),
            }
        return tensors


class Adapters(nn.Module):
    """The adapters of all modalities, in order.

    Args:
        starts: per modality (p_m, d).
        hidden: as in ``Adapter``.
        dropout: as in ``Adapter``.
    """

    def __init__(self, starts: Sequence[Tensor], *, hidden: int, dropout: float) -> None:
        super().__init__()
        self.each = nn.ModuleList(Adapter(start, hidden=hidden, dropout=dropout) for start in starts)

    def forward(self, scores: Sequence[Tensor]) -> Tensor:
        """Return (B, K, d) unit embeddings for K (B, p_m) scores; rows of absent modalities are to be masked."""
        outputs = torch.stack([adapter(s) for adapter, s in zip(self.each, scores, strict=True)], dim=1)
        outputs = outputs.float()
        # What functional.normalize gives, whose gradient takes three passes more.
        lengths: Tensor = torch.linalg.vector_norm(outputs, dim=2, keepdim=True)
        return outputs * lengths.clamp_min(1e-12).reciprocal()

    def merged(self) -> list[dict[str, Tensor]]:
        """Return per modality the weights as they are stored."""
        return [cast("Adapter", adapter).merged() for adapter in self.each]

    @staticmethod
    def merged_keys(*, hidden: int) -> tuple[str, ...]:
        """Return the names under which one adapter's weights are stored."""
        return ("weight", "enter.weight", "enter.bias", "leave.weight") if hidden else ("weight",)

    @classmethod
    def from_merged(cls, stored: Sequence[Mapping[str, Tensor]]) -> Self:
        """Build adapters from stored weights, for embedding (evaluation mode)."""
        hidden = len(stored[0]["enter.bias"]) if "enter.bias" in stored[0] else 0
        adapters = cls([weights["weight"] for weights in stored], hidden=hidden, dropout=0.0)
        for adapter, weights in zip(adapters.each, stored, strict=True):
            adapter.load_state_dict({k: t for k, t in weights.items() if k != "weight"}, strict=False)
        return adapters.eval()
