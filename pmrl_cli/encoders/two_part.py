"""Two-part encoder: beside the vectors of another encoder, what only one modality has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor

from pmrl_cli.batch import Encoded, Inputs
from pmrl_cli.encoders import encoder_from_state, encoder_state
from pmrl_cli.encoders.protocol import Encoder, Init, State
from pmrl_cli.encoders.residual import Residual
from pmrl_cli.encoders.rows import RowMap

__all__ = ["UNIQUE", "TwoPart"]

UNIQUE = "unique"
"""Name of the further output."""

_RANDOM = 0.05
"""Of the start of a unique map, so that it is nowhere zero, whatever the common map leaves."""


class TwoPart(Encoder):
    """An encoder whose ``extra["unique"]`` is (B, K, d) unit vectors from adapters of their own.

    Args:
        common: makes the vectors.
        unique: makes the further ones.
    """

    def __init__(self, common: Encoder, unique: Residual) -> None:
        super().__init__()
        self.common, self.unique = common, unique

    @classmethod
    def beside(cls, common: Encoder, init: Init) -> Self:
        """Put unique parts beside an encoder, starting from the principal axes that the closed form leaves out."""
        starts = [_remainder(closed_form) for closed_form in init.maps]
        return cls(common, Residual(starts, init.names, hidden=init.hidden, dropout=init.dropout))

    def forward(self, inputs: Inputs) -> Encoded:
        """Encode a batch."""
        common: Encoded = self.common(inputs)
        return common._replace(extra={**common.extra, UNIQUE: self.unique(inputs).vectors})

    def row_maps(self) -> tuple[RowMap, ...] | None:
        """Return those of the common part, which makes the vectors."""
        return self.common.row_maps()

    def state(self) -> State:
        """Return the states of both, the tensors of the second as ``NAME.unique.KEY``."""
        config, tensors = encoder_state(self.common)
        own, further = self.unique.state()
        renamed = {name.replace(".adapter.", f".{UNIQUE}."): tensor for name, tensor in further.items()}
        return {"common": config, UNIQUE: own}, {**tensors, **renamed}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Build both from stored weights."""
        own = {n.replace(f".{UNIQUE}.", ".adapter."): t for n, t in tensors.items() if f".{UNIQUE}." in n}
        rest = {name: tensor for name, tensor in tensors.items() if f".{UNIQUE}." not in name}
        return cls(encoder_from_state(config["common"], rest), Residual.from_state(config[UNIQUE], own)).eval()


def _remainder(closed_form: Tensor) -> Tensor:
    """Return a (p, d) map to the first d axes, less the directions that a (p, d) closed form reads most."""
    inputs, outputs = closed_form.shape
    read = min(outputs, inputs // 2)
    _, directions = torch.linalg.eigh(closed_form.double() @ closed_form.double().T)
    basis = directions[:, inputs - read :]
    left = (torch.eye(inputs, dtype=torch.float64) - basis @ basis.T)[:, :outputs].to(closed_form.dtype)
    start = _RANDOM * torch.randn(inputs, outputs, dtype=closed_form.dtype)
    start[:, : left.shape[1]] += left
    return start
