"""Terms that shape the space that another method makes: separation, bridge, geometry, neighbourhood.

Their formulas, sources and departures are in ``latent_structure``. What a term sees of an instance a second time is
its components with Gaussian noise, through the encoder (and its dropout) as it is: images and sentences, which the
papers crop and reword, are not there.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from pmrl_cli.batch import SINGLE, BatchGroup, Encoded, Inputs, Loss
from pmrl_cli.encoders.protocol import Encoder, Init
from pmrl_cli.encoders.two_part import UNIQUE, TwoPart
from pmrl_cli.terms.contrast import masked_mean, symmetric_info_nce
from pmrl_cli.terms.latent_structure import (
    bridge_distance,
    cross_geometry,
    neighbourhood_divergence,
    orthogonality,
    uniformity,
    view_geometry,
)
from pmrl_cli.terms.protocol import Term

__all__ = ["Bridge", "Geometry", "Neighbourhood", "Separation"]

NOISE = 0.3
"""Standard deviation of the noise on components, whose own is at most 1."""

TEMPERATURE = 0.1
"""Of the contrast of unique vectors with those of their second view."""


class _TwoViews(Term):
    """A term that sees every instance a second time. All processes draw the same noise, for the whole batch."""

    closed_form_stands_in: ClassVar[bool] = False

    def extend(self, encoder: Encoder, init: Init) -> Encoder:
        """Keep the encoder, to encode the second view with."""
        # In a list: the weights are the encoder's, not the term's.
        self._encoders = [encoder]
        return encoder

    def _second_view(self, inputs: Inputs) -> Encoded:
        noisy = [
            c + NOISE * torch.randn_like(c) * inputs.present[:, m, None] for m, c in enumerate(inputs.components)
        ]
        encoded: Encoded = self._encoders[0](inputs._replace(components=noisy))
        return encoded


class Separation(_TwoViews):
    """Beside the shared vector a unique one, orthogonal to it, different for every instance and spread out.

    mean <z, u>^2 + InfoNCE of u with its second view, within each modality + log mean exp(-2 ||u_j - u_k||^2).

    What to know: orthogonality is not independence. The unique vector may well hold what is shared too.
    """

    def extend(self, encoder: Encoder, init: Init) -> Encoder:
        """Add unique vectors, unless the encoder has them already."""
        return super().extend(encoder if isinstance(encoder, TwoPart) else TwoPart.beside(encoder, init), init)

    def forward(self, encoded: Encoded, inputs: Inputs, group: BatchGroup = SINGLE) -> Loss:
        """Return the loss of a batch."""
        unique, present = encoded.extra[UNIQUE], encoded.present
        views = self._second_view(inputs).extra[UNIQUE]
        contrasts = torch.stack(
            [
                symmetric_info_nce(unique[:, m], views[:, m], present[:, [m, m]], TEMPERATURE)
                for m in range(present.shape[1])
            ],
            dim=1,
        )
        parts = {
            "orthogonality": orthogonality(encoded.vectors, unique, present),
            "contrast": masked_mean(contrasts, present),
            "uniformity": uniformity(unique, present),
        }
        return Loss(torch.stack(list(parts.values())).sum(), {name: part.detach() for name, part in parts.items()})


class Bridge(_TwoViews):
    """The second view of a modality lies between its vector and that of another one: see ``bridge_distance``."""

    def forward(self, encoded: Encoded, inputs: Inputs, group: BatchGroup = SINGLE) -> Loss:
        """Return the loss of a batch."""
        views = self._second_view(inputs).vectors
        return Loss(bridge_distance(encoded.vectors, views, encoded.present), {})


class Geometry(_TwoViews):
    """Angles between instances agree across modalities and views: see ``cross_geometry`` and ``view_geometry``."""

    def forward(self, encoded: Encoded, inputs: Inputs, group: BatchGroup = SINGLE) -> Loss:
        """Return the loss of a batch."""
        views = self._second_view(inputs).vectors
        parts = {
            "modalities": cross_geometry(encoded.vectors, encoded.present),
            "views": view_geometry(encoded.vectors, views, encoded.present),
        }
        return Loss(parts["modalities"] + parts["views"], {name: part.detach() for name, part in parts.items()})


class Neighbourhood(Term):
    """The neighbours of an instance are those it has in its features: see ``neighbourhood_divergence``.

    The features are the principal components before whitening, which would make neighbours of noise.
    """

    on_device: ClassVar[bool] = True
    closed_form_stands_in: ClassVar[bool] = False

    def extend(self, encoder: Encoder, init: Init) -> Encoder:
        """Keep what undoes the whitening."""
        for m, factors in enumerate(init.whiten):
            self.register_buffer(f"undo{m}", factors.clamp_min(1e-12).reciprocal(), persistent=False)
        return encoder

    def forward(self, encoded: Encoded, inputs: Inputs, group: BatchGroup = SINGLE) -> Loss:
        """Return the loss of a batch."""
        scales: list[Tensor] = [getattr(self, f"undo{m}") for m in range(encoded.present.shape[1])]
        components = [c * scale for c, scale in zip(inputs.components, scales, strict=True)]
        return Loss(neighbourhood_divergence(encoded.vectors, components, encoded.present), {})
