"""Variational encoder: a posterior of one latent vector from each modality, decoders back to all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from pmrl_cli.batch import Encoded, Inputs
from pmrl_cli.encoders.gaussian import Gaussian, GaussianDecoder, GaussianEncoder, product_of_posteriors
from pmrl_cli.encoders.protocol import Encoder, Init, State
from pmrl_cli.encoders.two_part import TwoPart

__all__ = ["Imputed", "Variational", "imputer_of"]

SAMPLES = 32
"""Of the latent vector, by which the spread of an imputation is found; the same for every instance."""


class Imputed(NamedTuple):
    """What the modalities that an instance has say of all of them.

    Args:
        components: per modality (B, p_m) mean of the predictive distribution.
        deviations: per modality (B, p_m) its standard deviation: of the latent vector's uncertainty and of the noise.
    """

    components: list[Tensor]
    deviations: list[Tensor]


class Variational(Encoder):
    """The encoders and decoders of a multimodal variational autoencoder: see ``gaussian``.

    A modality's vector is the mean of its own posterior, of unit length; ``extra["fused"]`` that of the posterior of
    all that the instance has.

    Args:
        starts: per modality (p_m, d) closed-form map.
        names: of the modalities, under which their weights are stored.
        spreads: per modality (p_m,) standard deviation of each component.
        hidden: width of the residual MLPs; at least 1.
        dropout: share of components zeroed in training.
    """

    def __init__(
        self,
        starts: Sequence[Tensor],
        names: Sequence[str],
        spreads: Sequence[Tensor],
        *,
        hidden: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self._names, self._hidden = tuple(names), hidden
        self.encoders = nn.ModuleList(GaussianEncoder(start, hidden=hidden, dropout=dropout) for start in starts)
        self.decoders = nn.ModuleList(
            GaussianDecoder(_inverse(start), spread, hidden=hidden)
            for start, spread in zip(starts, spreads, strict=True)
        )
        self.spreads = list(spreads)

    @classmethod
    def from_init(cls, init: Init, hidden: int) -> Self:
        """Start from the closed form, whose outputs have the variance of the prior on average."""
        spreads = init.spread or [torch.ones(len(closed_form)) for closed_form in init.maps]
        return cls(init.maps, init.names, spreads, hidden=hidden, dropout=init.dropout)

    @property
    def decoder_list(self) -> list[GaussianDecoder]:
        """The decoders in order."""
        return [cast("GaussianDecoder", decoder) for decoder in self.decoders]

    def posteriors(self, inputs: Inputs) -> list[Gaussian]:
        """Return the posterior of each modality."""
        return [encoder(components) for encoder, components in zip(self.encoders, inputs.components, strict=True)]

    def forward(self, inputs: Inputs) -> Encoded:
        """Encode a batch."""
        posteriors = self.posteriors(inputs)
        means = torch.stack([posterior.mean for posterior in posteriors], dim=1)
        fused = product_of_posteriors(posteriors, inputs.present).mean
        return Encoded(_unit(means), inputs.present, {"fused": _unit(fused)})

    def impute(self, inputs: Inputs) -> Imputed:
        """Return what the modalities given say of all modalities, those given too."""
        posterior = product_of_posteriors(self.posteriors(inputs), inputs.present)
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(SAMPLES // 2, posterior.mean.shape[1], generator=generator).to(posterior.mean)
        # In opposite pairs: the mean over them is exact for a linear decoder.
        drawn = [posterior.at(n) for n in torch.cat([noise, -noise])]
        means, deviations = [], []
        for decoder in self.decoder_list:
            outputs = torch.stack([decoder(latent) for latent in drawn])
            means.append(outputs.mean(0))
            deviations.append((outputs.var(0, unbiased=False) + decoder.log_variance.exp()).sqrt())
        return Imputed(means, deviations)

    def state(self) -> State:
        """Return what each modality has as ``NAME.encoder.KEY``, ``NAME.decoder.KEY`` and ``NAME.spread``."""
        tensors = {
            f"{name}.{part}.{key}": tensor.detach()
            for part, modules in (("encoder", self.encoders), ("decoder", self.decoders))
            for name, module in zip(self._names, modules, strict=True)
            for key, tensor in module.state_dict().items()
        }
        tensors |= {f"{name}.spread": spread for name, spread in zip(self._names, self.spreads, strict=True)}
        return {"names": list(self._names), "hidden": self._hidden}, tensors

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Build the encoders and decoders from stored weights."""
        names = config["names"]
        starts = [tensors[f"{name}.encoder.linear"] for name in names]
        spreads = [tensors[f"{name}.spread"] for name in names]
        encoder = cls(starts, names, spreads, hidden=int(config["hidden"]), dropout=0.0)
        for part, modules in (("encoder", encoder.encoders), ("decoder", encoder.decoders)):
            for name, module in zip(names, modules, strict=True):
                prefix = f"{name}.{part}."
                module.load_state_dict({n[len(prefix) :]: t for n, t in tensors.items() if n.startswith(prefix)})
        return encoder.eval()


def imputer_of(encoder: Encoder) -> Variational | None:
    """Return the variational encoder that an encoder is, or that lies under further outputs; None without one."""
    while isinstance(encoder, TwoPart):
        encoder = encoder.common
    return encoder if isinstance(encoder, Variational) else None


def _unit(vectors: Tensor) -> Tensor:
    return functional.normalize(vectors, dim=-1)


def _inverse(start: Tensor) -> Tensor:
    """Return (d, p), the ridge regression of components of variance 1 on what a (p, d) map makes of them."""
    gram = start.T @ start
    ridge = 0.1 * gram.diagonal().mean().clamp_min(1e-6) * torch.eye(len(gram), dtype=gram.dtype)
    inverse: Tensor = torch.linalg.solve(gram + ridge, start.T)
    return inverse
