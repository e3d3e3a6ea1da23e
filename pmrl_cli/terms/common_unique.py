"""Terms on a common and a unique part of every modality, after DecAlign: see ``decoupling`` and ``transport``."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from pmrl_cli.batch import SINGLE, BatchGroup, Encoded, Inputs, Loss
from pmrl_cli.encoders.protocol import Encoder, Init
from pmrl_cli.encoders.two_part import UNIQUE, TwoPart
from pmrl_cli.terms.contrast import masked_mean
from pmrl_cli.terms.decoupling import linear_dependence, mean_discrepancy, moment_difference, squared_cosine
from pmrl_cli.terms.protocol import Term
from pmrl_cli.terms.transport import fit_mixtures, prototype_cost, transport_cost

__all__ = ["Decoupled", "Heterogeneous", "Homogeneous", "Reconstruction"]


def _parts(encoded: Encoded) -> tuple[Tensor, Tensor]:
    return encoded.vectors, encoded.extra[UNIQUE]


class Decoupled(Term):
    """mean cos(c, s)^2 + ``linear_dependence`` of the two parts."""

    on_device = True

    def forward(self, encoded: Encoded, inputs: Inputs, group: BatchGroup = SINGLE) -> Loss:
        """Return the loss of a batch."""
        common, unique = _parts(encoded)
        cosine = squared_cosine(common, unique, encoded.present)
        dependence = linear_dependence(common, unique, encoded.present)
        return Loss(cosine + dependence, {"cosine": cosine.detach(), "dependence": dependence.detach()})


class Heterogeneous(Term):
    """Transport between the mixtures of the unique parts, and of vectors to the means of the other modalities.

    On unique vectors times sqrt(d), as the cost is a mean over dimensions.

    Args:
        prototypes: components of each mixture.
    """

    def __init__(self, prototypes: int) -> None:
        super().__init__()
        self.prototypes = prototypes

    def forward(self, encoded: Encoded, inputs: Inputs, group: BatchGroup = SINGLE) -> Loss:
        """Return the loss of a batch."""
        _, unique = _parts(encoded)
        if not len(unique):
            return Loss(unique.sum(), {})
        scaled = unique * unique.shape[2] ** 0.5
        mixtures = fit_mixtures(scaled, encoded.present, self.prototypes)
        there = encoded.present.any(0).tolist()
        given = [mixture for mixture, has in zip(mixtures, there, strict=True) if has]
        transport = transport_cost(given or mixtures[:1])
        prototypes = prototype_cost(scaled, encoded.present, mixtures)
        return Loss(transport + prototypes, {"transport": transport.detach(), "prototypes": prototypes.detach()})


class Homogeneous(Term):
    """Moments and mean discrepancy between the common parts of modalities."""

    on_device = True

    def forward(self, encoded: Encoded, inputs: Inputs, group: BatchGroup = SINGLE) -> Loss:
        """Return the loss of a batch."""
        moments = moment_difference(encoded.vectors, encoded.present)
        discrepancy = mean_discrepancy(encoded.vectors, encoded.present)
        return Loss(moments + discrepancy, {"moments": moments.detach(), "discrepancy": discrepancy.detach()})


class Reconstruction(Term):
    """Mean squared error of the components, made of both parts by a decoder for each modality that is not kept.

    Without labels this is what the unique part is for: else it could be noise.
    """

    on_device = True
    closed_form_stands_in = False

    def extend(self, encoder: Encoder, init: Init) -> Encoder:
        """Add unique parts and the decoders."""
        self.decoders = nn.ModuleList(
            nn.Linear(2 * closed_form.shape[1], closed_form.shape[0]) for closed_form in init.maps
        )
        return encoder if isinstance(encoder, TwoPart) else TwoPart.beside(encoder, init)

    def forward(self, encoded: Encoded, inputs: Inputs, group: BatchGroup = SINGLE) -> Loss:
        """Return the loss of a batch."""
        both = torch.cat(_parts(encoded), dim=2) * encoded.vectors.shape[2] ** 0.5
        errors = []
        for m, decoder in enumerate(self.decoders):
            wanted = inputs.components[m]
            error = (cast("nn.Linear", decoder)(both[:, m]) - wanted).square().mean(1)
            errors.append(masked_mean(error, encoded.present[:, m]))
        value = torch.stack(errors).mean()
        return Loss(value, {"reconstruction": value.detach()})
