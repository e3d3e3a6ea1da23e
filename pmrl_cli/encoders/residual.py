"""Residual adapters: the light trained maps from a modality's components to the shared space.

An adapter is linear, or linear plus a residual MLP whose output layer starts at zero. Both start exactly at the
closed-form map, which weight decay then pulls towards: what is decayed is the departure from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pmrl_cli.batch import Encoded, Inputs
from pmrl_cli.encoders.protocol import Encoder, State, Update
from pmrl_cli.encoders.rows import FloatArray, RowMap, unit_rows
from pmrl_cli.encoders.seen import PARTS, Seen

__all__ = ["Adapter", "Residual"]


_ROOT_HALF = np.float32(0.5**0.5)


class Adapter(nn.Module):
    """One modality's map from (B, p) components to (B, d) outputs (not yet unit length).

    y = dropout(h) (W0 + D) + W2 GELU(W1 dropout(h) + b1), with D = W2 = 0 at the start. As a network,
    y = h (W0 + D) + W2 dropout(GELU(W1 h + b1)), with D = 0 and W2 random.

    Args:
        start: (p, d) W0, the closed-form map.
        hidden: width of the residual MLP; 0 leaves the adapter linear.
        dropout: fraction of components, or hidden units of a network, zeroed in training, in [0, 1).
        network: whether the MLP starts at random weights, and dropout is of its hidden units.
    """

    start: Tensor

    def __init__(self, start: Tensor, *, hidden: int, dropout: float, network: bool = False) -> None:
        super().__init__()
        inputs, outputs = start.shape
        self.register_buffer("start", start)
        self.departure = nn.Parameter(torch.zeros(inputs, outputs))
        self.dropout, self.network = dropout, network
        self.settled = False
        """Whether the linear map is all in ``start``, as it is read back: one row need not add nothing to it."""
        self.enter = nn.Linear(inputs, hidden) if hidden else None
        self.leave = nn.Linear(hidden, outputs, bias=False) if hidden else None
        if self.leave is not None and not network:
            nn.init.zeros_(self.leave.weight)

    def forward(self, components: Tensor) -> Tensor:
        """Return (B, d) outputs for (B, p) components."""
        if self.training and not self.network:
            components = functional.dropout(components, self.dropout)
        outputs = components @ (self.start if self.settled else self.start + self.departure)
        if self.enter is not None and self.leave is not None:
            # Not by calling the modules: for one row that takes longer than the product.
            hidden = functional.gelu(functional.linear(components, self.enter.weight, self.enter.bias))
            if self.training and self.network:
                hidden = functional.dropout(hidden, self.dropout)
            outputs = outputs + functional.linear(hidden, self.leave.weight)
        return outputs

    def enters_last(self, components: Tensor) -> Tensor:
        """Return the (B, w) inputs of the last layer of the residual branch; w 0 without one."""
        return components[:, :0] if self.enter is None else functional.gelu(self.enter(components))

    def row_map(self) -> RowMap:
        """Return the map to unit vectors in NumPy: the linear map and the first layer in one product."""
        from scipy.special import erf  # takes as long to import as a hundred rows

        weights = {key: tensor.cpu().numpy() for key, tensor in self.merged().items()}
        linear = weights["weight"]
        if self.enter is None:
            return lambda components: unit_rows(components @ linear)
        outputs = linear.shape[1]
        first = np.concatenate([linear, weights["enter.weight"].T], axis=1)
        bias, last = weights["enter.bias"], weights["leave.weight"].T / 2

        def vectors(components: FloatArray) -> FloatArray:
            both = components @ first
            entered = both[:, outputs:]
            entered += bias
            gate = erf(entered * _ROOT_HALF)
            gate += 1
            gate *= entered  # GELU of it, twice: ``last`` has the other half
            return unit_rows(both[:, :outputs] + gate @ last)

        return vectors

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
        network: as in ``Adapter``.
    """

    def __init__(
        self, starts: Sequence[Tensor], names: Sequence[str], *, hidden: int, dropout: float, network: bool = False
    ) -> None:
        super().__init__()
        self.each = nn.ModuleList(Adapter(start, hidden=hidden, dropout=dropout, network=network) for start in starts)
        self._names, self.hidden = tuple(names), hidden
        self.seen: Seen | None = None
        self.protection: nn.Module | None = None

    def forward(self, inputs: Inputs) -> Encoded:
        """Return the unit outputs of the adapters; rows of absent modalities are to be masked."""
        # In training a GPU is not asked which are given.
        given = [True] * len(self.each) if self.training else inputs.present.any(dim=0).tolist()
        outputs = torch.stack([self._outputs(m, inputs, given=g) for m, g in enumerate(given)], dim=1).float()
        # What functional.normalize gives, whose gradient takes three passes more.
        lengths: Tensor = torch.linalg.vector_norm(outputs, dim=2, keepdim=True)
        return Encoded(outputs * lengths.clamp_min(1e-12).reciprocal(), inputs.present)

    def _outputs(self, m: int, inputs: Inputs, *, given: bool) -> Tensor:
        adapter, components = cast("Adapter", self.each[m]), inputs.components[m]
        if not given:
            return components.new_zeros(components.shape[0], adapter.start.shape[1])
        outputs: Tensor = adapter(components)
        return outputs

    def row_maps(self) -> tuple[RowMap, ...]:
        """Return the adapters in NumPy."""
        return tuple(cast("Adapter", adapter).row_map() for adapter in self.each)

    def update(self) -> Update | None:
        """Return the protection of what was seen before, where adapters go on from a model."""
        return cast("Update | None", self.protection)

    def see(self, batches: Iterable[Inputs], total: Callable[[Tensor], Tensor]) -> None:
        """Take the moments of the inputs of the adapters as they are now: ``seen``, with what was seen before."""
        adapters = [cast("Adapter", adapter) for adapter in self.each]
        sizes = [(len(adapter.start), self.hidden, adapter.start.shape[1]) for adapter in adapters]
        sums = [[torch.zeros(size, size, dtype=torch.float64) for size in of_one] for of_one in sizes]
        together = torch.zeros(len(adapters), len(adapters), dtype=torch.float64)
        with torch.no_grad():
            for inputs in batches:
                vectors, present = self(inputs).vectors, inputs.present.double()
                together += present.mT @ present
                for m, (adapter, moments) in enumerate(zip(adapters, sums, strict=True)):
                    has = inputs.present[:, m]
                    components = inputs.components[m][has]
                    inputs_of_layers = (components, adapter.enters_last(components), vectors[has, m])
                    for moment, rows in zip(moments, inputs_of_layers, strict=True):
                        moment += rows.double().mT @ rows.double()
        together = total(together)
        means = [
            [(total(moment) / together[m, m].clamp_min(1)).float() for moment in moments]
            for m, moments in enumerate(sums)
        ]
        inputs_met, hidden, outputs = (tuple(of_one[part] for of_one in means) for part in range(len(PARTS)))
        now = Seen(inputs_met, hidden, outputs, together)
        self.seen = now if self.seen is None else self.seen.plus(now)

    def state(self) -> State:
        """Return the weights of each adapter as ``NAME.adapter.KEY``, its linear map in one piece."""
        tensors = {
            f"{name}.adapter.{key}": tensor
            for name, adapter in zip(self._names, self.each, strict=True)
            for key, tensor in cast("Adapter", adapter).merged().items()
        }
        if self.seen is not None:
            tensors |= self.seen.tensors(self._names)
        return {"names": list(self._names), "hidden": self.hidden}, tensors

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Build the adapters from stored weights."""
        names, hidden = config["names"], int(config["hidden"])
        starts = [tensors[f"{name}.adapter.weight"] for name in names]
        encoder = cls(starts, names, hidden=hidden, dropout=0.0)
        if "seen.together" in tensors:
            encoder.seen = Seen.from_tensors(names, tensors)
        if encoder.state()[1].keys() != tensors.keys():
            difference = ", ".join(sorted(encoder.state()[1].keys() ^ tensors.keys())[:5])
            message = f"names of tensors that differ: {difference}"
            raise ValueError(message)
        for name, adapter in zip(names, encoder.each, strict=True):
            stored = {key: tensors[f"{name}.adapter.{key}"] for key in cast("Adapter", adapter).merged()}
            adapter.load_state_dict({key: tensor for key, tensor in stored.items() if key != "weight"}, strict=False)
            cast("Adapter", adapter).settled = True
        return encoder.eval()
