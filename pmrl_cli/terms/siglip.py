"""Pairwise sigmoid loss over all pairs of modalities: every (instance, instance) is its own yes or no."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from pmrl_cli.batch import SINGLE, BatchGroup, Encoded, Inputs, Loss
from pmrl_cli.terms.contrast import LearnedTemperature, all_pairs, matches
from pmrl_cli.terms.protocol import Term

__all__ = ["PairwiseSigmoid"]


class PairwiseSigmoid(Term):
    """Sum of -log sigmoid(y_ij (cos_ij / temperature + bias)) for every two modalities, y = 1 for i = j, else -1.

    For a pair of modalities the instances that have both are compared with each other, and only they, so that there
    are as many negatives to a positive as in the complete case; two that show the same thing are neither. The sum is
    divided by the number of all positives. The published bias of -10 is meant for batches of tens of thousands: at B
    instances chance is near -log(B), and until the bias is learned the loss mostly attracts.

    Args:
        temperature: divides the cosines at first, in [0.015, 1]; it is learned (the published scale of 10 is .1).
        bias: added to the logits at first; it is learned.

    Source: Zhai, Mustafa, Kolesnikov, Beyer, "Sigmoid Loss for Language Image Pre-Training", ICCV 2023; departs: all
        pairs of modalities, masked, and the scale is bounded by 1 and 100.
    """

    def __init__(self, *, temperature: float = 0.1, bias: float = -10.0) -> None:
        super().__init__()
        self.temperature = LearnedTemperature(temperature)
        self.bias = nn.Parameter(torch.tensor(bias))

    def forward(self, encoded: Encoded, inputs: Inputs, group: BatchGroup = SINGLE) -> Loss:
        """Return the loss of a batch."""
        embeddings, present = encoded.vectors, encoded.present
        temperature = self.temperature()
        value = embeddings[:0].sum() + 0 * temperature + 0 * self.bias
        same = matches(inputs)
        positives = 0
        for m, n in all_pairs(present.shape[1]):
            both = present[:, m] & present[:, n]
            logits = embeddings[both, m] @ embeddings[both, n].mT / temperature + self.bias
            # -log sigmoid(x) = softplus(x) - x, and -log sigmoid(-x) = softplus(x)
            terms = functional.softplus(logits)
            if same is not None:
                terms = terms.masked_fill(same[both][:, both], 0)
            value = value + terms.sum() - logits.diagonal().sum()
            positives += len(logits)
        return Loss(
            value / max(positives, 1), {"temperature": temperature.detach(), "bias": self.bias.detach().clone()}
        )
