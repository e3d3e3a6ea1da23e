"""Residual adapters and one weight a modality, by which the vectors of an instance are fused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional

from pmrl_cli.batch import Encoded, Inputs
from pmrl_cli.encoders.protocol import State
from pmrl_cli.encoders.residual import Residual

__all__ = ["Weighted"]

_WEIGHTS = "weights"


class Weighted(Residual):
    """Residual adapters whose ``fused`` vector is the direction of sum over modalities of sqrt(w_m) z_m.

    Args:
        starts: as in ``Residual``, as are the others.
        names: "
        hidden: "
        dropout: "
    """

    weights: Tensor

    def __init__(self, starts: Sequence[Tensor], names: Sequence[str], *, hidden: int, dropout: float) -> None:
        super().__init__(starts, names, hidden=hidden, dropout=dropout)
        self.register_buffer(_WEIGHTS, torch.ones(len(starts)))

    def forward(self, inputs: Inputs) -> Encoded:
        """Return the vectors, and ``fused`` (B, d) beside them."""
        vectors, present, _ = super().forward(inputs)
        shares = self.weights.sqrt() * present
        return Encoded(vectors, present, {"fused": functional.normalize((shares[..., None] * vectors).sum(1), dim=1)})

    def state(self) -> State:
        """Return the adapters and the weights."""
        config, tensors = super().state()
        return config, {**tensors, _WEIGHTS: self.weights}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Build the encoder from what was stored."""
        encoder = super().from_state(config, tensors)
        encoder.weights.copy_(tensors[_WEIGHTS])
        return encoder
