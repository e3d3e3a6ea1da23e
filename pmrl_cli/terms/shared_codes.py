"""One codebook for all modalities: what is general to an instance is quantised, what is specific is kept apart."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from pmrl_cli.batch import SINGLE, BatchGroup, Encoded, Inputs, Loss
from pmrl_cli.encoders.codebook import Codebook
from pmrl_cli.encoders.discrete import Discrete
from pmrl_cli.encoders.protocol import Encoder, Init
from pmrl_cli.terms.club import ConditionalGaussian, information_bound, log_density
from pmrl_cli.terms.codebook import code_agreement, commitment
from pmrl_cli.terms.contrast import masked_mean, matches
from pmrl_cli.terms.protocol import Term

__all__ = ["SharedCodes"]

_HIDDEN = 128


class SharedCodes(Term):
    """What FCID minimises besides the contrast, on vectors g_m, their codes q_m and what is specific, s_m.

    The sum of cross-modal code matching (3/2 ``code_agreement``), ``commitment``, CLUB of (g_m; s_m) where it is
    above 0, the negative log-likelihood of the density that CLUB reads, and the mean square of the reconstruction of
    a modality's components from [q_m; s_m]. The last three are means over (instance, modality). In training the
    codebook follows each batch.

    The density learns from its likelihood alone, and CLUB moves s_m alone. As published it moves g_m too; a bound
    from above that is not tight has no least value, and it drove the codes of an instance apart (rate of same codes
    of three modalities of 20 classes after 400 steps: .00; at least 0: .33; as here: .63).

    Args:
        temperature: of the distributions over codes.
        information: weight of CLUB.
        reconstruction: weight of the reconstruction.

    Source: FCID, of Huang et al. 2024 (arXiv 2403.05168), its coarse branch. Departs further: single vectors of unit
        length, so that distances are divided by a temperature; masks; CLUB over all pairs with densities summed over
        columns; one step of its likelihood beside each of the rest, where there are five before it.
    """

    def __init__(self, *, temperature: float = 0.1, information: float = 1.0, reconstruction: float = 1.0) -> None:
        super().__init__()
        self.temperature, self.information, self.reconstruction = temperature, information, reconstruction
        self._codebook: tuple[Codebook, ...] = ()  # not registered: it is the encoder's

    def extend(self, encoder: Encoder, init: Init) -> Encoder:
        """Make the decoders and densities of as many modalities as the encoder has."""
        encoder = cast("Discrete", encoder)
        self._codebook = (encoder.codebook,)
        dim, specific = init.maps[0].shape[1], encoder.specific
        self.densities = nn.ModuleList(ConditionalGaussian(dim, specific, _HIDDEN) for _ in init.maps)
        self.decoders = nn.ModuleList(
            nn.Sequential(nn.Linear(dim + specific, _HIDDEN), nn.GELU(), nn.Linear(_HIDDEN, len(m)))
            for m in init.maps
        )
        return encoder

    def forward(self, encoded: Encoded, inputs: Inputs, group: BatchGroup = SINGLE) -> Loss:
        """Return the loss of a batch."""
        (codebook,) = self._codebook
        vectors = encoded.vectors.masked_fill(~encoded.present[..., None], 0)
        present, specific = encoded.present, encoded.extra["specific"].masked_fill(~encoded.present[..., None], 0)
        nearest = codebook.nearest(vectors)
        quantised = codebook.quantised(vectors, nearest)
        agreement = code_agreement(vectors, present, codebook, self.temperature, matches(inputs))
        pull = commitment(vectors, codebook.codes[nearest], present)
        bounds, likelihoods, errors = [], [], []
        for m, (density, decoder) in enumerate(zip(self.densities, self.decoders, strict=True)):
            general, own, has = vectors[:, m], specific[:, m], present[:, m]
            mean, log_variance = density(general.detach())
            likelihoods.append(masked_mean(log_density(mean, log_variance, own.detach()), has))
            # Neither the density nor the general vectors give way: see the class.
            bounds.append(information_bound(mean.detach(), log_variance.detach(), own, has).clamp_min(0))
            made = decoder(torch.cat([quantised[:, m], own], dim=1))
            errors.append(masked_mean((made - inputs.components[m]).square().mean(1), has))
        bound, likelihood, error = (torch.stack(of).mean() for of in (bounds, likelihoods, errors))
        if self.training:
            codebook.learn(vectors, nearest, present)
        value = 1.5 * agreement + pull + self.information * bound - likelihood + self.reconstruction * error
        used = len(codebook.codes) - (codebook.idle > 0).sum()
        parts = {
            "codes": agreement,
            "commitment": pull,
            "information": bound,
            "reconstruction": error,
            "codes_used": used.to(value.dtype),
        }
        return Loss(value, {name: part.detach() for name, part in parts.items()})
