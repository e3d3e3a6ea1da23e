"""Residual adapters: the light trained maps from a modality's components to the shared space.

An adapter is linear, or linear plus a residual MLP whose output layer starts at zero. Both start exactly at the
closed-form map, which weight decay then pulls towards: what is decayed is the departure from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from pmrl_cli.batch import Encoded, Inputs
from pmrl_cli.encoders.protocol import Encoder, State

__all__ = ["Adapter", "Residual"]


class Adapter(nn.Module):
    """One modality's map from (B, p) components to (B, d) outputs (not yet unit length).

    y = dropout(h) (W0 + D) + W2 GELU(W1 dropout(h) + b1), with D = W2 = 0 at the start.

    Args:
        start: (p, d) W0, the closed-form map.
        hidden: width of the residual MLP; 0 leaves the adapter linear.
        dropout: fraction of components zeroed in training, in [0, 1).
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

    def forward(self, components: Tensor) -> Tensor:
        """Return (B, d) outputs for (B, p) components."""
        components = functional.dropout(components, self.dropout, self.training)
        outputs = components @ (self.start + self.departure)
        if self.enter is not None and self.leave is not None:
            outputs = outputs + self.leave(functional.gelu(self.enter(components)))
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


class Residual(Encoder):
    """One adapter for each modality: the encoder of every method that does not bring its own.

    Args:
        starts: per modality (p_m, d).
        names: of the modalities, under which their weights are stored.
        hidden: as in ``Adapter``.
        dropout: as in ``Adapter``.
    """

    def __init__(self, starts: Sequence[Tensor], names: Sequence[str], *, hidden: int, dropout: float) -> None:
        super().__init__()
        self.each = nn.ModuleList(Adapter(start, hidden=hidden, dropout=dropout) for start in starts)
        self._names, self._hidden = tuple(names), hidden

    def forward(self, inputs: Inputs) -> Encoded:
        """Return the unit outputs of the adapters; rows of absent modalities are to be masked."""
        outputs = torch.stack([self._outputs(m, inputs) for m in range(len(self.each))], dim=1).float()
        # What functional.normalize gives, whose gradient takes three passes more.
        lengths: Tensor = torch.linalg.vector_norm(outputs, dim=2, keepdim=True)
        return Encoded(outputs * lengths.clamp_min(1e-12).reciprocal(), inputs.present)

    def _outputs(self, m: int, inputs: Inputs) -> Tensor:
        adapter, components = cast("Adapter", self.each[m]), inputs.components[m]
        if not self.training and not bool(inputs.present[:, m].any()):  # as where a modality is not given
            return components.new_zeros(components.shape[0], adapter.start.shape[1])
        outputs: Tensor = adapter(components)
        return outputs

    def state(self) -> State:
        """Return the weights of each adapter as ``NAME.adapter.KEY``, its linear map in one piece."""
        tensors = {
            f"{name}.adapter.{key}": tensor
            for name, adapter in zip(self._names, self.each, strict=True)
            for key, tensor in cast("Adapter", adapter).merged().items()
        }
        return {"names": list(self._names), "hidden": self._hidden}, tensors

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Build the adapters from stored weights."""
        names, hidden = config["names"], int(config["hidden"])
        starts = [tensors[f"{name}.adapter.weight"] for name in names]
        encoder = cls(starts, names, hidden=hidden, dropout=0.0)
        if encoder.state()[1].keys() != tensors.keys():
            difference = ", ".join(sorted(encoder.state()[1].keys() ^ tensors.keys())[:5])
            message = f"names of tensors that differ: {difference}"
            raise ValueError(message)
        for name, adapter in zip(names, encoder.each, strict=True):
            stored = {key: tensors[f"{name}.adapter.{key}"] for key in cast("Adapter", adapter).merged()}
            adapter.load_state_dict({key: tensor for key, tensor in stored.items() if key != "weight"}, strict=False)
        return encoder.eval()
