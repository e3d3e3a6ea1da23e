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
from pmrl_cli.encoders.readout import Readout, ridge_readout
from pmrl_cli.encoders.two_part import TwoPart

__all__ = ["Imputed", "Variational", "imputer_of"]

SAMPLES = 32
"""Of the latent vector, by which the spread of an imputation is found; the same for every instance."""


_BLUR = 0.5
"""Share of a prediction's error that the posterior's own variance may make at the start."""


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
        encoders: one a modality.
        decoders: one a modality.
        names: of the modalities, under which their weights are stored.
        spreads: per modality (p_m,) standard deviation of each component.
    """

    def __init__(
        self,
        encoders: Sequence[GaussianEncoder],
        decoders: Sequence[GaussianDecoder],
        names: Sequence[str],
        spreads: Sequence[Tensor],
    ) -> None:
        super().__init__()
        self._names = tuple(names)
        self.encoders, self.decoders = nn.ModuleList(encoders), nn.ModuleList(decoders)
        self.spreads = list(spreads)

    @classmethod
    def from_init(cls, init: Init, hidden: int) -> Self:
        """Start from the closed form, and decode by ridge regression what the others say: see ``_readouts``."""
        spreads = init.spread or tuple(torch.ones(len(closed_form)) for closed_form in init.maps)
        encoders = [GaussianEncoder(start, hidden=hidden, dropout=init.dropout) for start in init.maps]
        found = _readouts(encoders, init)
        # Where what others say pins a modality down, a posterior as wide as at first would blur it.
        blur = torch.stack([(one.blur / one.readout.variance.clamp_min(1e-6)).mean() for one in found]).mean()
        if blur > _BLUR:
            for encoder in encoders:
                encoder.narrow(float(blur / _BLUR), len(encoders) - 1)
            found = _readouts(encoders, init)
        decoders = []
        for readout, blur_of_one in found:
            noise = torch.maximum(readout.variance - blur_of_one, readout.variance / 10)
            start, intercept = readout.weights.float(), readout.intercept.float()
            decoders.append(GaussianDecoder(start, intercept, noise.float(), hidden))
        return cls(encoders, decoders, init.names, spreads)

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
        return {"names": list(self._names)}, tensors

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Build the encoders and decoders from stored weights."""
        names = config["names"]
        encoders, decoders = [], []
        for name in names:
            start, hidden = tensors[f"{name}.encoder.linear"], len(tensors[f"{name}.encoder.enter.bias"])
            encoders.append(GaussianEncoder(start, hidden=hidden))
            decoders.append(GaussianDecoder(start.T, start.new_zeros(len(start)), start.new_ones(len(start)), hidden))
        encoder = cls(encoders, decoders, names, [tensors[f"{name}.spread"] for name in names])
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


class _Start(NamedTuple):
    """How a decoder starts: what it reads, and the (p,) variance that the posterior's own makes of it."""

    readout: Readout
    blur: Tensor


def _readouts(encoders: Sequence[GaussianEncoder], init: Init) -> list[_Start]:
    """Return ridge regressions of each modality on the posterior mean of an instance's other ones.

    Where they say nothing of it, it predicts the mean; its variance is that of instances that were left out.
    """
    assert init.sample is not None
    components, present = init.sample.components, init.sample.present
    found = []
    for m, own in enumerate(components):
        rows = present[:, m] & (present.sum(1) > 1)
        others = present[rows].clone()
        others[:, m] = False
        with torch.no_grad():
            each = [encoder.eval()(c[rows]) for encoder, c in zip(encoders, components, strict=True)]
            posterior = product_of_posteriors(each, others)
        # Errors weigh as they do in the principal components, before they are whitened.
        factors = init.whiten[m] if init.whiten else torch.ones(own.shape[1])
        importance = factors.double().clamp_min(1e-9).pow(-2)
        readout = ridge_readout(posterior.mean, own[rows], importance / importance.sum())
        variance = posterior.log_variance.exp().double()
        blur = (
            variance.mean(0) if len(variance) else variance.new_ones(variance.shape[1])
        ) @ readout.weights.square()
        found.append(_Start(readout, blur))
    for encoder in encoders:
        encoder.train()
    return found
