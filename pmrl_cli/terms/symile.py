"""Symile: contrast of the multilinear inner product of all modalities with that of shuffled instances."""

from __future__ import annotations

import torch
from torch import Tensor

from pmrl_cli.batch import SINGLE, BatchGroup, Encoded, Inputs, Loss
from pmrl_cli.terms.contrast import LearnedTemperature
from pmrl_cli.terms.protocol import Term

__all__ = ["MultilinearContrast", "draw_shuffles"]


def draw_shuffles(instances: int, modalities: int) -> Tensor:
    """Draw an order of the instances for every anchor and every other modality, from torch's default generator.

    Returns: (K, K - 1, n) int64 on the CPU.
    """
    orders = [torch.randperm(instances) for _ in range(modalities * (modalities - 1))]
    return torch.stack(orders).view(modalities, modalities - 1, instances)


class MultilinearContrast(Term):
    """Cross-entropy of the scaled multilinear inner product sum_d prod_m z_md, with each modality as the anchor.

    The anchor's candidates are its own instance and, for every other place j of the batch, the modalities of j after
    each was shuffled for itself. Mean over anchors and instances. Only instances that have every modality take part.

    What to know: it is meant for dependence that only all modalities together have (as in exclusive or) and trains no
    pairwise cosine; the product of three or more vectors that agree is not large by itself, so the closed-form start
    is no start for it. The product of K random unit vectors is about d^(-(K-1)/2). So that the logits are not all 0
    for many modalities, the scale starts at d^(K/2-1) / temperature: for two modalities that of a cosine.

    Args:
        temperature: at first, in [0.015, 1]; it is learned.

    Source: Saporta, Puli, Goldstein, Ranganath, "Contrasting with Symile: Simple Model-Agnostic Representation
        Learning for Unlimited Modalities", NeurIPS 2024, O(n) negatives; departs: start and range of the scale, a
        shuffled candidate that happens to show what the instance shows is left out, incomplete instances are left out
        (there, missing modalities have a learned embedding).
    """

    def __init__(self, *, temperature: float = 0.1) -> None:
        super().__init__()
        self.temperature = LearnedTemperature(temperature)

    def forward(self, encoded: Encoded, inputs: Inputs, group: BatchGroup = SINGLE) -> Loss:
        """Return the loss of a batch."""
        embeddings, present = encoded.vectors, encoded.present
        temperature = self.temperature()
        complete = embeddings[present.all(1)]
        instances, modalities, dim = complete.shape
        value = embeddings[:0].sum() + 0 * temperature
        parts = {"temperature": temperature.detach()}
        if instances == 0 or modalities < 2:
            return Loss(value, parts)
        scale = dim ** (modalities / 2 - 1) / temperature
        own = complete.prod(1).sum(1)
        place = torch.arange(instances, device=embeddings.device)
        shown = place if inputs.match is None else inputs.match[present.all(1)]
        shuffles = draw_shuffles(instances, modalities).to(embeddings.device)
        for m in range(modalities):
            others = [n for n in range(modalities) if n != m]
            shuffled = torch.stack([complete[order, n] for order, n in zip(shuffles[m], others, strict=True)])
            scores = torch.where(place[:, None] == place, own, complete[:, m] @ shuffled.prod(0).mT)
            itself = (shown[shuffles[m]][:, None] == shown[:, None]).all(0) & (place[:, None] != place)
            logits = (scale * scores).masked_fill(itself, -torch.inf)
            value = value + (logits.logsumexp(1) - logits.diagonal()).mean() / modalities
        return Loss(value, parts)
