"""PMRL, sign-aware and unsaturated: a leading singular value per instance, and a contrast of leading directions."""

from __future__ import annotations

import torch

from pmrl_cli.batch import SINGLE, BatchGroup, Encoded, Inputs, Loss
from pmrl_cli.spectrum import Spectrum, subset_spectra
from pmrl_cli.terms.contrast import (
    LearnedTemperature,
    masked_mean,
    matches,
    pairwise_contrast,
    random_subsets,
    symmetric_info_nce,
)
from pmrl_cli.terms.protocol import Term
from pmrl_cli.terms.spectrum import spectrum_loss

__all__ = ["Principal"]


class Principal(Term):
    """Principled multimodal representation learning on embeddings that start unaligned.

    The spectrum part is the mean of ``spectrum_loss`` over instances with at least two modalities. The instance
    part is symmetric InfoNCE between the leading directions of two disjoint subsets of modalities, drawn again for
    every batch, over instances present in both; its negatives are the whole batch. The pairwise part is symmetric
    InfoNCE between single modalities. The loss is their weighted sum; a part of weight 0 is not computed.

    Args:
        spectrum_weight: of the spectrum part.
        instance_weight: of the instance part.
        pairwise_weight: of the pairwise part.
        temperature_instance: of both contrasts at first, in [0.015, 1]; it is learned.

    Source: after Liu, Xia, Ng, Chua, "Principled Multimodal Representation Learning", 2025 (arXiv 2507.17343);
        departs: shifted relation (a modality pointing the other way is the worst, not the best), temperature from
        the measured spectrum, chance-corrected by arity, and cross-modal negatives.
    """

    local = on_device = True

    def __init__(
        self,
        *,
        spectrum_weight: float = 0.1,
        instance_weight: float = 1.0,
        pairwise_weight: float = 1.0,
        temperature_instance: float = 0.1,
    ) -> None:
        super().__init__()
        self.spectrum_weight = spectrum_weight
        self.instance_weight = instance_weight
        self.pairwise_weight = pairwise_weight
        self.temperature_instance = LearnedTemperature(temperature_instance)

    def forward(self, encoded: Encoded, inputs: Inputs, group: BatchGroup = SINGLE) -> Loss:
        """Return the local loss of a batch."""
        embeddings, present = encoded.vectors, encoded.present
        temperature = self.temperature_instance()
        same = matches(inputs, group)
        value = embeddings[:0].sum() + 0 * temperature
        parts = {"temperature_instance": temperature.detach() / group.size}
        if present.shape[1] < 2:
            return Loss(value, parts)
        # One pass over the vectors for both: the whole of each instance, then the two subsets.
        subsets = random_subsets(present.shape[1], present.device) & present[:, None]
        spectra = subset_spectra(embeddings, torch.cat([present[:, None], subsets], dim=1), sign_aware=True)
        if self.spectrum_weight:
            losses, temperatures = spectrum_loss(Spectrum(*(field[:, 0] for field in spectra)), present, group)
            contributes = present.sum(1) > 1
            whole = group.gather(contributes)
            part = masked_mean(losses, contributes, whole)
            value = value + self.spectrum_weight * part
            parts["spectrum"] = part.detach()
            parts["temperature_spectrum"] = masked_mean(temperatures, contributes, whole)
        if self.instance_weight:
            _, first, second = spectra.leading_direction.unbind(1)
            has = subsets.any(2)
            losses = symmetric_info_nce(first, second, has, temperature, group, same)
            part = masked_mean(losses, has.all(1), group.gather(has.all(1)))
            value = value + self.instance_weight * part
            parts["instance"] = part.detach()
        if self.pairwise_weight:
            part = pairwise_contrast(embeddings, present, temperature, group=group, same=same)
            value = value + self.pairwise_weight * part
            parts["pairwise"] = part.detach()
        return Loss(value, parts)
