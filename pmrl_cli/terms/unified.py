"""Consistency of what a joint encoder makes of one modality and of several (UmURL)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from pmrl_cli.batch import SINGLE, BatchGroup, Encoded, Inputs, Loss
from pmrl_cli.terms.contrast import LearnedTemperature, masked_mean, matches, pairwise_contrast
from pmrl_cli.terms.protocol import Term

__all__ = ["JointContrast", "UnifiedConsistency"]

VARIANCE_EPSILON = 1e-4
"""Under the root of the variance, as published: at variance 0 the root has no gradient."""


class UnifiedConsistency(Term):
    """The fused vector decodes into each modality, the modalities agree, and nothing collapses.

    With z_m the projected vector of modality m alone, u_m what the fused vector decodes into for it (``projected``
    and ``decoded`` of ``encoders.joint``), and all means over the entries of the vectors too,

        intra = mean over (m, instance that has m) of (z_m - u_m)^2
        inter = mean over (m, instance that has m and another) of (z_m - mean over its modalities of z_n)^2
        spread = mean over m and both of z, u of: 5 mean_d relu(1 - sd_d) + sum_{d != d'} cov_dd'^2 / width
        loss = consistency (intra + inter) + 2 spread

    Variances and covariances are over the instances that have m, with n - 1 below, of modalities that two or more
    have.

    Args:
        consistency: weight of both differences.
        variance_weight: of the hinge in the spread.

    Source: UmURL (see ``encoders.joint``); departs: means over modalities where there are sums, so that the weights
        do not depend on how many modalities there are, masked.
    """

    def __init__(self, *, consistency: float = 5.0, variance_weight: float = 5.0) -> None:
        super().__init__()
        self.consistency, self.variance_weight = consistency, variance_weight

    def forward(self, encoded: Encoded, inputs: Inputs, group: BatchGroup = SINGLE) -> Loss:
        """Return the loss of a batch."""
        alone, decoded, present = encoded.extra["projected"], encoded.extra["decoded"], inputs.present
        alone, decoded = (of.masked_fill(~present[..., None], 0) for of in (alone, decoded))
        intra = masked_mean((alone - decoded).square().mean(2), present)
        shared = present & (present.sum(1, keepdim=True) > 1)
        centre = alone.sum(1, keepdim=True) / present.sum(1).clamp_min(1)[:, None, None]
        inter = masked_mean((alone - centre).square().mean(2), shared)
        hinge, covariance = (
            torch.stack(both).mean() for both in zip(*(_spread(of, present) for of in (alone, decoded)), strict=True)
        )
        value = self.consistency * (intra + inter) + 2 * (self.variance_weight * hinge + covariance)
        parts = {"intra": intra, "inter": inter, "hinge": hinge, "covariance": covariance}
        return Loss(value, {name: part.detach() for name, part in parts.items()})


class JointContrast(Term):
    """InfoNCE over all pairs of the vectors of single modalities and the fused vector, each of its own view.

    Not of UmURL, whose consistency needs no negatives: added here, as without it the vectors of different
    instances become alike.

    Args:
        temperature: divides the cosines at first; it is learned.
    """

    def __init__(self, *, temperature: float = 0.1) -> None:
        super().__init__()
        self.temperature = LearnedTemperature(temperature)

    def forward(self, encoded: Encoded, inputs: Inputs, group: BatchGroup = SINGLE) -> Loss:
        """Return the loss of a batch."""
        vectors = torch.cat([encoded.vectors, encoded.extra["fused"][:, None]], dim=1)
        # An instance with one modality has nothing to agree on: its fused vector is another view of that alone.
        shared = inputs.present.sum(1, keepdim=True) > 1
        present = torch.cat([inputs.present & shared, shared], dim=1)
        value = pairwise_contrast(vectors, present, self.temperature(), same=matches(inputs, group))
        return Loss(value, {"contrast": value.detach()})


def _spread(outputs: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Return hinge and covariance of (B, K, w) outputs, zero where absent: means over modalities."""
    mask = present.T[..., None]
    vectors, count = outputs.transpose(0, 1), mask.sum(1, keepdim=True)
    centred = (vectors - vectors.sum(1, keepdim=True) / count.clamp_min(1)) * mask
    covariances = centred.mT @ centred / (count - 1).clamp_min(1)
    variances = covariances.diagonal(dim1=1, dim2=2)
    enough = count[:, 0, 0] > 1
    hinges = functional.relu(1 - (variances + VARIANCE_EPSILON).sqrt()).mean(1)
    off_diagonal = covariances.square().sum((1, 2)) - variances.square().sum(1)
    return masked_mean(hinges, enough), masked_mean(off_diagonal / outputs.shape[2], enough)
