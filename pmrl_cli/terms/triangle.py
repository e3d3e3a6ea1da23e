"""TRIANGLE: the area between three modalities of an instance is small, that of mixed instances is not."""

from __future__ import annotations

import torch
from torch import Tensor

from pmrl_cli.batch import SINGLE, BatchGroup, Encoded, Inputs, Loss
from pmrl_cli.errors import UsageError
from pmrl_cli.terms.contrast import (
    LearnedTemperature,
    masked_mean,
    matches,
    other_modalities,
    symmetric_cross_entropy,
)
from pmrl_cli.terms.protocol import Term

__all__ = ["AreaContrast", "areas"]

SMOOTHING = 0.1
"""Label smoothing, as published."""


def areas(anchors: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return (|u|^2 |v|^2 - (u . v)^2) / 2 for u, v from every anchor to the other two modalities of every instance.

    Twice the square of the triangle's area: what the published code trains, where the paper has the root. Unlike the
    root it is smooth where the corners fall together or in line.

    Args:
        anchors: (B, d) unit length.
        first: (B, d) unit length.
        second: (B, d) unit length.

    Returns: (B, B), anchor i with the others of j.
    """
    to_first, to_second = anchors @ first.mT, anchors @ second.mT
    between = (first * second).sum(1)
    dot = 1 - to_first - to_second + between
    return ((2 - 2 * to_first) * (2 - 2 * to_second) - dot.square()) / 2


class AreaContrast(Term):
    """Cross-entropy of -area / temperature, from the anchor to the other two modalities and back.

    For three modalities only. The mean over instances that have all three; one without the anchor, or with nothing
    but the anchor, is a candidate for the others. What to know: an area of 0 is a line, not a point, so that two of
    the three may agree while the third is anywhere. It sees signs, unlike the volume of ``gram``.

    Args:
        anchor: index of the modality of the queries (the published one is text), in the order of their names
            (that of ``pmrl inspect``).
        temperature: divides the areas at first, in [0.015, 1]; it is learned.

    Source: Cicchetti, Grassucci, Comminiello, "A TRIANGLE Enables Multimodal Alignment Beyond Cosine Similarity",
        NeurIPS 2025, and its public code; departs: masked, and no matching head beside it.
    """

    def __init__(self, *, anchor: int = 0, temperature: float = 0.07) -> None:
        super().__init__()
        self.anchor = anchor
        self.temperature = LearnedTemperature(temperature)

    def check(self, modalities: int) -> None:
        """Raise UsageError if there are not three modalities, or no such anchor."""
        if modalities != 3:
            raise UsageError(
                what="triangle takes three modalities",
                found=str(modalities),
                expected="3",
                next_step="Give three of them, or choose another --objective (gram takes any number).",
            )
        other_modalities(modalities, self.anchor)

    def forward(self, encoded: Encoded, inputs: Inputs, group: BatchGroup = SINGLE) -> Loss:
        """Return the loss of a batch."""
        embeddings, present = encoded.vectors, encoded.present
        others = other_modalities(3, self.anchor)
        temperature = self.temperature()
        has = torch.stack([present[:, self.anchor], present[:, others].all(1)], 1)
        vectors = embeddings.masked_fill(~present[..., None], 0)
        area = areas(vectors[:, self.anchor], *vectors[:, others].unbind(1))
        value = masked_mean(symmetric_cross_entropy(-area / temperature, has, SMOOTHING, matches(inputs)), has.all(1))
        parts = {"temperature": temperature.detach(), "area": masked_mean(area.diagonal(), has.all(1)).detach()}
        return Loss(value + 0 * temperature, parts)
