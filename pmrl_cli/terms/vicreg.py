"""VICReg over all pairs of modalities: agreement without negatives, kept from collapse by its spread."""

from __future__ import annotations

import torch
from torch.nn import functional

from pmrl_cli.batch import SINGLE, BatchGroup, Encoded, Inputs, Loss
from pmrl_cli.terms.contrast import all_pairs, masked_mean
from pmrl_cli.terms.protocol import Term

__all__ = ["VarianceInvarianceCovariance"]

VARIANCE_EPSILON = 1e-4
"""Under the root of the variance, as published: at variance 0 the root has no gradient."""


class VarianceInvarianceCovariance(Term):
    """Invariance of every two modalities, and variance and covariance of each.

    On embeddings times sqrt(d), whose entries have mean square 1: the embeddings have unit length here, and only so
    can a dimension reach the standard deviation of 1 that the hinge asks for (all of them together, exactly when the
    mean is 0 and the spread even). Invariance is the mean squared difference of entries, over (pair, instance that
    has both); variance the mean over dimensions of relu(1 - sd), covariance the sum of the squared covariances of
    different dimensions over d, each the mean over modalities that two instances have. Instances with fewer than two
    modalities take no part.

    What to know: the covariance of n instances in d dimensions is at least of the order d / n by chance, so that
    batches should be larger than d.

    Args:
        invariance_weight: of the invariance.
        variance_weight: of the variance hinge.
        covariance_weight: of the covariance, counted twice as there (once for each of two branches).

    Source: Bardes, Ponce, LeCun, "VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised
        Learning", ICLR 2022, and its public code; departs: no expander (the embeddings themselves, of unit length,
        times sqrt(d)), all pairs of modalities, masked.
    """

    def __init__(
        self, *, invariance_weight: float = 25.0, variance_weight: float = 25.0, covariance_weight: float = 1.0
    ) -> None:
        super().__init__()
        self.invariance_weight = invariance_weight
        self.variance_weight = variance_weight
        self.covariance_weight = covariance_weight

    def forward(self, encoded: Encoded, inputs: Inputs, group: BatchGroup = SINGLE) -> Loss:
        """Return the loss of a batch."""
        embeddings, present = encoded.vectors, encoded.present
        dim = embeddings.shape[2]
        present = present & (present.sum(1, keepdim=True) > 1)
        # (K, B, d) and (K, B, 1)
        vectors = (embeddings.masked_fill(~present[..., None], 0) * dim**0.5).transpose(0, 1)
        mask = present.T[..., None]
        pairs = all_pairs(present.shape[1])
        first, second = ([pair[side] for pair in pairs] for side in (0, 1))
        differences = (vectors[first] - vectors[second]).square().mean(2)
        invariance = masked_mean(differences, (mask[first] & mask[second])[..., 0])

        count = mask.sum(1, keepdim=True)
        centred = (vectors - vectors.sum(1, keepdim=True) / count.clamp_min(1)) * mask
        covariances = centred.mT @ centred / (count - 1).clamp_min(1)
        variances = covariances.diagonal(dim1=1, dim2=2)
        spreads = count[:, 0, 0] > 1
        hinges = functional.relu(1 - (variances + VARIANCE_EPSILON).sqrt()).mean(1)
        variance = masked_mean(hinges, spreads)
        off_diagonal = covariances.square().sum((1, 2)) - variances.square().sum(1)
        covariance = 2 * masked_mean(off_diagonal / dim, spreads)

        parts = {"invariance": invariance, "variance": variance, "covariance": covariance}
        weights = (self.invariance_weight, self.variance_weight, self.covariance_weight)
        value = torch.stack([weight * part for weight, part in zip(weights, parts.values(), strict=True)]).sum()
        return Loss(value, {name: part.detach() for name, part in parts.items()})
