"""How far each instance is from full alignment, by the gap between its first two singular values."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pmrl_cli.batch import SINGLE, BatchGroup, Encoded, Inputs, Loss
from pmrl_cli.spectrum import Spectrum, spectrum
from pmrl_cli.terms.contrast import masked_mean
from pmrl_cli.terms.protocol import Term

__all__ = ["TEMPERATURE_FLOOR", "SpectrumGap", "spectrum_loss"]

TEMPERATURE_FLOOR = 0.05
"""Least spectrum temperature. Orthogonal modalities ask for .13 to .17; less is asked for only when they oppose
each other, where the gradient (about .1 / temperature) must stay bounded."""


def spectrum_loss(spectra: Spectrum, present: Tensor, group: BatchGroup = SINGLE) -> tuple[Tensor, Tensor]:
    """Return how far each instance is from full alignment, by softmax over its sign-aware singular values.

    An instance with K_i modalities has logits sigma / sqrt(K_i) (so that the first is 1 when aligned) over a
    temperature at which the leading one takes 9/10 of the softmax at the batch's mean gap between the first two:
    tau = gap / ln(9 (K_i - 1)). So the softmax never saturates, however aligned the batch. -log of that share is
    then shifted and scaled to be 0 for aligned and 1 for orthogonal modalities, for every K_i and temperature;
    modalities that oppose each other are above 1.

    Args:
        spectra: sign-aware spectra, (b, K) and so on.
        present: (b, K) bool; at least one instance of all processes must have two.
        group: the processes that share the batch.

    Returns: (b,) loss, 0 for an instance with fewer than two modalities; (b,) temperature, detached.
    """
    count = present.sum(1).clamp_min(2).to(spectra.singular_values.dtype)[:, None]
    contributes = present.sum(1) > 1
    levels = spectra.singular_values / count.sqrt()
    gap = masked_mean((levels[:, 0] - levels[:, 1]).detach(), contributes, group.gather(contributes))
    gap = group.gather(gap[None], each=1).sum()
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


class SpectrumGap(Term):
    """The mean of ``spectrum_loss`` over instances with at least two modalities."""

    local = on_device = True

    def forward(self, encoded: Encoded, inputs: Inputs, group: BatchGroup = SINGLE) -> Loss:
        """Return the local loss of a batch."""
        embeddings, present = encoded.vectors, encoded.present
        value = embeddings[:0].sum()
        if present.shape[1] < 2:
            return Loss(value, {})
        losses, _ = spectrum_loss(spectrum(embeddings, present, sign_aware=True), present, group)
        contributes = present.sum(1) > 1
        part = masked_mean(losses, contributes, group.gather(contributes))
        return Loss(value + part, {"spectrum": part.detach()})
