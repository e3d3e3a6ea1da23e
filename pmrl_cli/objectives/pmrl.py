"""PMRL, sign-aware and unsaturated: one leading singular value per instance, leading directions told apart."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pmrl_cli.objectives import Loss
from pmrl_cli.objectives.contrast import (
    LearnedTemperature,
    masked_mean,
    pairwise_contrast,
    random_subsets,
    symmetric_info_nce,
)
from pmrl_cli.objectives.peers import ALONE, Peers
from pmrl_cli.spectrum import Spectrum, subset_spectra

__all__ = ["Pmrl", "spectrum_loss"]

TEMPERATURE_FLOOR = 0.05
"""Least spectrum temperature. Orthogonal modalities ask for .13 to .17; less is asked for only when they oppose
each other, where the gradient (about .1 / temperature) must stay bounded."""


def spectrum_loss(spectra: Spectrum, present: Tensor, peers: Peers = ALONE) -> tuple[Tensor, Tensor]:
    """Return how far each instance is from full alignment, by softmax over its lifted singular values.

    An instance with K_i modalities has logits sigma / sqrt(K_i) (so that the first is 1 when aligned) over a
    temperature at which the leading one takes 9/10 of the softmax at the batch's mean gap between the first two:
    tau = gap / ln(9 (K_i - 1)). So the softmax never saturates, however aligned the batch. -log of that share is
    then shifted and scaled to be 0 for aligned and 1 for orthogonal modalities, for every K_i and temperature;
    modalities that oppose each other are above 1.

    Args:
        spectra: lifted spectra, (b, K) and so on.
        present: (b, K) bool; at least one instance of all processes must have two.
        peers: the processes that share the batch.

    Returns: (b,) loss, 0 for an instance with fewer than two modalities; (b,) temperature, detached.
    """
    count = present.sum(1).clamp_min(2).to(spectra.singular_values.dtype)[:, None]
    contributes = present.sum(1) > 1
    levels = spectra.singular_values / count.sqrt()
    gap = masked_mean((levels[:, 0] - levels[:, 1]).detach(), contributes, peers.gather(contributes))
    gap = peers.gather(gap[None], each=1).sum()
    temperature = (gap / (9 * (count - 1)).log()).clamp_min(TEMPERATURE_FLOOR)

    rank = torch.arange(present.shape[1], device=present.device)
    logits = (levels / temperature).masked_fill(rank >= count, -torch.inf)
    loss = logits.logsumexp(1) - logits[:, 0]
    aligned, orthogonal = (
        (1 + (count - 1) * (-level_gap / temperature).exp()).log()[:, 0]
        for level_gap in (torch.ones_like(count), (((count + 1) / 2).sqrt() - math.sqrt(0.5)) / count.sqrt())
    )
    loss = (loss - aligned) / (orthogonal - aligned)
    return loss.masked_fill(~contributes, 0), temperature[:, 0]


class Pmrl(nn.Module):
    """Principled multimodal representation learning on embeddings that start unaligned.

    The spectrum part is the mean of ``spectrum_loss`` over instances with at least two modalities. The instance
    part is symmetric InfoNCE between the leading directions of two disjoint subsets of modalities, drawn anew for
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

    shares = on_device = True

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

    def forward(self, embeddings: Tensor, present: Tensor, peers: Peers = ALONE) -> Loss:
        """Return the loss of a batch.

        Args:
            embeddings: (b, K, d), unit length where present, anything finite elsewhere.
            present: (b, K) bool.
            peers: the processes that share the batch.
        """
        temperature = self.temperature_instance()
        value = embeddings[:0].sum() + 0 * temperature
        parts = {"temperature_instance": temperature.detach() / peers.size}
        if present.shape[1] < 2:
            return Loss(value, parts)
        # One pass over the vectors for both: the whole of each instance, then the two subsets.
        subsets = random_subsets(present.shape[1], present.device) & present[:, None]
        spectra = subset_spectra(embeddings, torch.cat([present[:, None], subsets], dim=1), lifted=True)
        if self.spectrum_weight:
            losses, temperatures = spectrum_loss(Spectrum(*(field[:, 0] for field in spectra)), present, peers)
            contributes = present.sum(1) > 1
            whole = peers.gather(contributes)
            part = masked_mean(losses, contributes, whole)
            value = value + self.spectrum_weight * part
            parts["spectrum"] = part.detach()
            parts["temperature_spectrum"] = masked_mean(temperatures, contributes, whole)
        if self.instance_weight:
            _, first, second = spectra.leading_direction.unbind(1)
            has = subsets.any(2)
            losses = symmetric_info_nce(first, second, has, temperature, peers)
            part = masked_mean(losses, has.all(1), peers.gather(has.all(1)))
            value = value + self.instance_weight * part
            parts["instance"] = part.detach()
        if self.pairwise_weight:
            part = pairwise_contrast(embeddings, present, temperature, peers=peers)
            value = value + self.pairwise_weight * part
            parts["pairwise"] = part.detach()
        return Loss(value, parts)
