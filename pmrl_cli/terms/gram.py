"""GRAM: the volume that an instance's modalities span is small, that of mixed instances is not."""

from __future__ import annotations

import torch
from torch import Tensor

from pmrl_cli.batch import SINGLE, BatchGroup, Encoded, Inputs, Loss
from pmrl_cli.terms.contrast import (
    LearnedTemperature,
    masked_mean,
    matches,
    other_modalities,
    symmetric_cross_entropy,
)
from pmrl_cli.terms.protocol import Term

__all__ = ["VolumeContrast", "volumes"]

SMOOTHING = 0.1
"""Label smoothing, as published."""

EPSILON = 1e-6
"""Added to the diagonal of every Gram matrix. Where modalities are linearly dependent the volume has a kink and no
gradient; this rounds it off: values move by about EPSILON / volume (1e-3 at volume 0), gradients stay below 1."""


def volumes(anchors: Tensor, others: Tensor, present: Tensor) -> Tensor:
    """Return the volume of every anchor with the other modalities of every instance.

    The square root of the determinant of the Gram matrix of (anchor i, present others of j). By Schur complement that
    is the volume of the others of j times the distance of anchor i from their span, so that a B x B matrix of
    determinants takes one factorisation an instance and one matrix product.

    Args:
        anchors: (B, d) finite.
        others: (B, M, d) unit length where present, anything finite elsewhere.
        present: (B, M) bool.

    Returns: (B, B) in [0, 1] but for EPSILON; absent modalities count as orthogonal to everything (G * pp' +
        diag(1 - p)), which gives the volume of those that are there.
    """
    others = others.masked_fill(~present[..., None], 0).double()
    gram = others @ others.mT + torch.diag_embed(torch.where(present, EPSILON, 1.0).to(others.dtype))
    factor: Tensor = torch.linalg.cholesky(gram)
    basis = torch.linalg.solve_triangular(factor, others, upper=False).to(anchors.dtype)
    inside = (anchors @ basis.flatten(0, 1).mT).unflatten(1, present.shape).square().sum(2)
    # Never below EPSILON but by rounding.
    outside: Tensor = (anchors.square().sum(1, keepdim=True) + EPSILON - inside).clamp_min(EPSILON)
    return factor.diagonal(dim1=1, dim2=2).prod(1).to(anchors.dtype) * outside.sqrt()


class VolumeContrast(Term):
    """Cross-entropy of -volume / temperature, from the anchor to the other modalities' tuples and back.

    The mean over instances that have the anchor and another modality. What to know: the volume does not see signs (z
    and -z span nothing), it is 0 as soon as any two of the modalities agree, and near 1 with a vanishing gradient
    while they are nearly orthogonal, as unaligned ones are. Tuples that lack modalities have larger volumes, so that
    with missing ones candidates of unequal arity are not quite comparable. Only the anchor is contrasted.

    Args:
        anchor: index of the modality of the queries (the published one is text), in the order of their names
            (that of ``pmrl inspect``).
        temperature: divides the volumes at first, in [0.015, 1]; it is learned.

    Source: Cicchetti, Grassucci, Sigillo, Comminiello, "Gramian Multimodal Representation Learning and Alignment",
        ICLR 2025, and its public code; departs: EPSILON, missing modalities, and no matching head beside it.
    """

    def __init__(self, *, anchor: int = 0, temperature: float = 0.07) -> None:
        super().__init__()
        self.anchor = anchor
        self.temperature = LearnedTemperature(temperature)

    def check(self, modalities: int) -> None:
        """Raise UsageError if there is no such anchor."""
        other_modalities(modalities, self.anchor)

    def forward(self, encoded: Encoded, inputs: Inputs, group: BatchGroup = SINGLE) -> Loss:
        """Return the loss of a batch."""
        embeddings, present = encoded.vectors, encoded.present
        others = other_modalities(present.shape[1], self.anchor)
        temperature = self.temperature()
        has_anchor = present[:, self.anchor]
        anchors = embeddings[:, self.anchor].masked_fill(~has_anchor[:, None], 0)
        volume = volumes(anchors, embeddings[:, others], present[:, others])
        has = torch.stack([has_anchor, present[:, others].any(1)], 1)
        value = masked_mean(
            symmetric_cross_entropy(-volume / temperature, has, SMOOTHING, matches(inputs)), has.all(1)
        )
        parts = {
            "temperature": temperature.detach(),
            "volume": masked_mean(volume.diagonal(), has.all(1)).detach(),
        }
        return Loss(value + 0 * temperature, parts)
