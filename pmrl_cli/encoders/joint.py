"""A joint encoder: one trunk that takes any subset of the modalities, fused before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from pmrl_cli.batch import Encoded, Inputs
from pmrl_cli.encoders.protocol import Encoder, State
from pmrl_cli.encoders.residual import Adapter

__all__ = ["Joint", "Views"]


class Views(NamedTuple):
    """How an instance is changed for training, differently each time it is seen.

    Args:
        noise: standard deviation of what is added to the components, whose own is 1.
        left_out: probability that a modality is left out of the fused view; one always stays.
    """

    noise: float
    left_out: float


class Joint(Encoder):
    """One vector from whatever an instance has, and one from each of its modalities alone.

    With e_m the adapter of modality m (``Adapter``) and S any non-empty subset of the modalities

        h = F mean_{m in S} e_m(x_m),    y_S = h + W2 GELU(W1 norm(h) + b1),    z_S = y_S / |y_S|

    ``vectors`` are z_{m} of single modalities, ``fused`` is z_S of all that are present. F starts as the identity
    and W2 at 0, so that both start at the closed form. In training the two are made from views of their own: noise
    on the components, and a random subset in the fused one; and there are two more outputs, projected by a network
    for each modality: ``projected`` (B, K, d), of the vector of each modality, and ``decoded`` (B, K, d), of the
    fused one.

    Args:
        starts: per modality (p_m, d).
        names: of the modalities, under which their weights are stored.
        hidden: width of the residual networks; 0 leaves all of it linear.
        dropout: fraction of the components zeroed in training, in [0, 1).
        views: for training; None makes neither views nor projections.

    Source: Sun et al., "Unified Multi-modal Unsupervised Representation Learning for Skeleton-based Action
        Understanding" (UmURL), ACM Multimedia 2023, and its public code; departs: a residual network takes the place
        of the transformer over time and joints, single modalities pass F as well, subsets are drawn in training,
        projections are as wide as the space (wider ones cannot spread in all directions), and layers are normalised
        by instance, where there by batch: then no process asks what others hold.
    """

    def __init__(
        self,
        starts: Sequence[Tensor],
        names: Sequence[str],
        *,
        hidden: int,
        dropout: float,
        views: Views | None = None,
    ) -> None:
        super().__init__()
        self._names, self._hidden, self._views = tuple(names), hidden, views
        self.each = nn.ModuleList(Adapter(start, hidden=hidden, dropout=dropout) for start in starts)
        self.trunk = Adapter(torch.eye(starts[0].shape[1]), hidden=hidden, dropout=0.0)
        self.projectors = nn.ModuleList(_projector(starts[0].shape[1]) for _ in (names if views is not None else ()))

    def forward(self, inputs: Inputs) -> Encoded:
        """Encode a batch."""
        single = self._each(inputs)
        if self._views is None or not self.training:
            return Encoded(
                self._encode(single), inputs.present, {"fused": self._encode(_mean(single, inputs.present))}
            )
        subset = _subset(inputs.present, self._views.left_out)
        vectors, fused = self._encode(single), self._encode(_mean(self._each(inputs), subset))
        return Encoded(
            vectors,
            inputs.present,
            {
                "fused": fused,
                "projected": self._project(vectors.unbind(1)),
                "decoded": self._project([fused] * len(self.each)),
            },
        )

    def _each(self, inputs: Inputs) -> Tensor:
        outputs: list[Tensor] = []
        for m, components in enumerate(inputs.components):
            adapter = cast("Adapter", self.each[m])
            if not self.training and not bool(inputs.present[:, m].any()):  # as where a modality is not given
                outputs.append(components.new_zeros(components.shape[0], adapter.start.shape[1]))
                continue
            if self.training and self._views is not None and self._views.noise:
                components = components + self._views.noise * torch.randn_like(components)
            outputs.append(adapter(components))
        return torch.stack(outputs, dim=1).float()

    def _encode(self, outputs: Tensor) -> Tensor:
        """Return the unit (..., d) vectors of fused (..., d) outputs."""
        trunk = self.trunk
        fused = outputs @ (trunk.start + trunk.departure)
        if trunk.enter is not None and trunk.leave is not None:
            normal = functional.layer_norm(fused, (trunk.leave.out_features,))
            fused = fused + trunk.leave(functional.gelu(trunk.enter(normal)))
        return functional.normalize(fused.float(), dim=-1)

    def _project(self, vectors: Sequence[Tensor]) -> Tensor:
        scale = vectors[0].shape[-1] ** 0.5  # entries of mean square 1
        each = [projector(scale * of_one) for projector, of_one in zip(self.projectors, vectors, strict=True)]
        return torch.stack(each, dim=1).float()

    def state(self) -> State:
        """Return the weights of the adapters and the trunk; projections are for training only."""
        named = [*zip((f"{name}.adapter" for name in self._names), self.each, strict=True), ("trunk", self.trunk)]
        tensors = {f"{at}.{key}": tensor for at, of in named for key, tensor in cast("Adapter", of).merged().items()}
        return {"names": list(self._names), "hidden": self._hidden}, tensors

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Build the encoder from stored weights."""
        names, hidden = config["names"], int(config["hidden"])
        encoder = cls([tensors[f"{name}.adapter.weight"] for name in names], names, hidden=hidden, dropout=0.0)
        encoder.trunk.start.copy_(tensors["trunk.weight"])
        if encoder.state()[1].keys() != tensors.keys():
            message = f"names of tensors that differ: {sorted(encoder.state()[1].keys() ^ tensors.keys())[:5]}"
            raise ValueError(message)
        for at, adapter in [
            *zip((f"{n}.adapter" for n in names), encoder.each, strict=True),
            ("trunk", encoder.trunk),
        ]:
            stored = {key: tensors[f"{at}.{key}"] for key in cast("Adapter", adapter).merged() if key != "weight"}
            adapter.load_state_dict(stored, strict=False)
        return encoder.eval()


def _projector(dim: int) -> nn.Module:
    layers: list[nn.Module] = []
    for _ in range(2):
        layers += [nn.Linear(dim, dim), nn.LayerNorm(dim), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(dim, dim))


def _mean(outputs: Tensor, present: Tensor) -> Tensor:
    """Return the (B, d) mean of (B, K, d) outputs over the modalities that are present; 0 where none is."""
    weights = present / present.sum(1, keepdim=True).clamp_min(1)
    return (outputs.masked_fill(~present[..., None], 0) * weights[..., None]).sum(1)


def _subset(present: Tensor, left_out: float) -> Tensor:
    """Return (B, K) which modalities are kept: each that is present with probability 1 - left_out, and one surely."""
    draws = torch.rand(present.shape, device=present.device).masked_fill(~present, -1)
    surely = draws == draws.amax(1, keepdim=True)
    return present & ((draws >= left_out) | surely)
