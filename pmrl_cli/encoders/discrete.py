"""A space with a codebook: residual adapters to what modalities share, and for each what it has of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from pmrl_cli.batch import Encoded, Inputs
from pmrl_cli.encoders.codebook import Codebook
from pmrl_cli.encoders.protocol import Encoder, State
from pmrl_cli.encoders.residual import Residual
from pmrl_cli.encoders.rows import RowMap

__all__ = ["Discrete"]

_SHARED, _OWN, _CODES = "shared.", "own.", "codes"


class Discrete(Encoder):
    """Vectors by one residual adapter a modality, ``specific`` ones by a network beside it, and codes for the former.

    Args:
        starts: per modality (p_m, d) closed-form map.
        names: of the modalities.
        codebook: of d columns.
        hidden: of the adapters.
        dropout: of the adapters.
        specific: columns of what is specific to a modality.
    """

    def __init__(
        self,
        starts: Sequence[Tensor],
        names: Sequence[str],
        codebook: Codebook,
        *,
        hidden: int,
        dropout: float,
        specific: int = 64,
    ) -> None:
        super().__init__()
        self.shared = Residual(starts, names, hidden=hidden, dropout=dropout)
        self.own = nn.ModuleList(
            nn.Sequential(nn.Linear(len(start), specific), nn.GELU(), nn.Linear(specific, specific))
            for start in starts
        )
        self.codebook = codebook
        self._names, self._hidden, self.specific = tuple(names), hidden, specific

    def forward(self, inputs: Inputs) -> Encoded:
        """Return unit vectors, and ``specific`` (B, K, specific) beside them."""
        vectors, present, _ = self.shared(inputs)
        own = [cast("Tensor", network(c)).float() for network, c in zip(self.own, inputs.components, strict=True)]
        return Encoded(vectors, present, {"specific": torch.stack(own, dim=1)})

    def row_maps(self) -> tuple[RowMap, ...]:
        """Return the adapters, which make the vectors."""
        return self.shared.row_maps()

    def codes(self) -> Tensor:
        """Return the (N, d) codes."""
        return self.codebook.codes

    def state(self) -> State:
        """Return the adapters, the networks beside them and the codes."""
        config, tensors = self.shared.state()
        found = {f"{_SHARED}{key}": tensor for key, tensor in tensors.items()}
        for name, network in zip(self._names, self.own, strict=True):
            found |= {f"{_OWN}{name}.{key}": tensor.detach() for key, tensor in network.state_dict().items()}
        return config, {**found, _CODES: self.codebook.codes}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Build the encoder from stored weights."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}

        shared = Residual.from_state(config, part(_SHARED))
        names, codes = config["names"], tensors[_CODES]
        own = [part(f"{_OWN}{name}.") for name in names]
        starts = [part(_SHARED)[f"{name}.adapter.weight"] for name in names]
        specific = len(own[0]["2.bias"])
        codebook = Codebook(*codes.shape)
        codebook.codes.copy_(codes)
        encoder = cls(starts, names, codebook, hidden=int(config["hidden"]), dropout=0.0, specific=specific)
        encoder.shared = shared
        for network, weights in zip(encoder.own, own, strict=True):
            network.load_state_dict(weights)
        return encoder.eval()
