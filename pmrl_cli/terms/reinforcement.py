"""Reinforcement of weak modalities: what each says of a label is measured while training, and the weakest raised."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pmrl_cli.batch import SINGLE, BatchGroup, Encoded, Inputs, Loss
from pmrl_cli.encoders.protocol import Encoder, Init
from pmrl_cli.encoders.weighted import Weighted
from pmrl_cli.information.shapley import check_modalities, members, shapley_weights
from pmrl_cli.terms.contrast import masked_mean
from pmrl_cli.terms.protocol import Term

__all__ = ["Reinforcement", "SubsetHead", "contributions", "modality_weights"]

LIMIT = 4.0
"""A modality weighs at most so many times as the others, and at least the inverse."""

DECAY = 0.9
"""Of the moving average of contributions."""

LEAST = 1e-3
"""Nats below which a contribution is none."""


def modality_weights(contributions: Tensor) -> Tensor:
    """Return (K,) w_m, the mean contribution of the other modalities over that of m, in [1/4, 4].

    The weak weigh more than 1.

    Args:
        contributions: (K,) in nats; those below ``LEAST`` count as that.
    """
    known = contributions.clamp_min(LEAST)
    others = (known.sum() - known) / max(1, len(known) - 1)
    return (others / known).clamp(1 / LIMIT, LIMIT)


class SubsetHead(nn.Module):
    """Logits of a label from any subset of the modalities: linear in each, and a hidden layer on their sum.

    Args:
        dim: columns d of a vector.
        modalities: K.
        classes: C.
        hidden: units of the hidden layer.
    """

    def __init__(self, dim: int, modalities: int, classes: int, hidden: int = 64) -> None:
        super().__init__()
        self.direct = nn.Parameter(torch.zeros(modalities, dim, classes))
        self.enter = nn.Parameter(torch.randn(modalities, dim, hidden) / dim**0.5)
        self.offset = nn.Parameter(torch.zeros(modalities, hidden))
        self.leave = nn.Linear(hidden, classes)

    def forward(self, vectors: Tensor, subsets: Tensor) -> Tensor:
        """Return (B, S, C) logits.

        Args:
            vectors: (B, K, d), finite.
            subsets: (B, S, K) how much of each modality is seen: 0 for none of it, 1 for all.
        """
        direct = torch.einsum("bkd,kdc->bkc", vectors, self.direct)
        hidden = torch.einsum("bkd,kdh->bkh", vectors, self.enter) + self.offset
        logits: Tensor = self.leave(functional.gelu(subsets @ hidden)) + subsets @ direct
        return logits


def contributions(losses: Tensor, has: Tensor, shapley: Tensor) -> tuple[Tensor, Tensor]:
    """Return the Shapley value of each modality in minus cross-entropies: of each instance, and their means.

    Args:
        losses: (B, 2^K) cross-entropy from every subset of the modalities that an instance has.
        has: (B, K) bool: which instances count for which modality.
        shapley: (K, 2^K) as ``shapley_weights``.

    Returns: (B, K), detached, and (K,), whose gradient goes through the subsets with the modality alone.
    """
    with_it, without = shapley.clamp_min(0), shapley.clamp_max(0)
    of_each = -losses @ with_it.mT - losses.detach() @ without.mT
    means = (of_each * has).sum(0) / has.sum(0).clamp_min(1)
    return of_each.detach(), means


class Reinforcement(Term):
    """Cross-entropy of a label from every subset of the modalities, the weak ones weighted up.

    With v(S) = -CE_S, the contribution phi_m of a modality is its Shapley value over the subsets of those that an
    instance has; a moving average (decay .9), which no gradient passes, sets the weights w_m = ``modality_weights``.
    The loss is the sum of

    * the mean of CE_S over subsets of two modalities or more,
    * half the CE of all, seen through sqrt(w_m),
    * over modalities, max(w_m, 1) CE_m, in which an instance counts 1 - phi_im / max_n phi_in times more if m is its
      weakest modality (what a re-sampling with at most one copy does in expectation),
    * ``balance`` (max phi - min phi), whose gradient goes through the subsets with the weakest modality alone:
      nothing is gained by unlearning what others say.

    Instances without a label are left out. The label is read in training only.

    Args:
        balance: weight mu of the last part.

    Source: after Gao et al., "Asymmetric Reinforcing against Multi-modal Representation Bias" (ARM), AAAI 2025
        (arXiv 2501.01240). Departs: contributions are variational bounds (Barber, Agakov, NIPS 2003) over all
        subsets of up to 6 modalities, where the published code has histograms of two; the min-max loss and the
        re-sampling, which that code does not have, are a reading of the abstract; nothing asks for the label once
        trained, where that code weights the fusion by it in testing too.
    """

    contributions: Tensor
    remaining: Tensor
    inside: Tensor
    shapley: Tensor

    def __init__(self, *, balance: float = 0.1) -> None:
        super().__init__()
        self.balance = balance
        self._encoder: tuple[Weighted, ...] = ()  # not registered: it is the encoder that is trained

    def check(self, modalities: int) -> None:
        """Raise UsageError for more modalities than there are subsets to value."""
        check_modalities(modalities)

    def extend(self, encoder: Encoder, init: Init) -> Encoder:
        """Make the head, of as many classes as the labels have; an encoder with weights is given them."""
        count = len(init.maps)
        if isinstance(encoder, Weighted):
            self._encoder = (encoder,)
        self.head = SubsetHead(init.maps[0].shape[1], count, init.classes)
        self.register_buffer("inside", torch.from_numpy(members(count)), persistent=False)
        self.register_buffer("shapley", torch.from_numpy(shapley_weights(count)).float(), persistent=False)
        self.register_buffer("contributions", torch.zeros(count))
        self.register_buffer("remaining", torch.ones(count))
        return encoder

    def forward(self, encoded: Encoded, inputs: Inputs, group: BatchGroup = SINGLE) -> Loss:
        """Return the loss of a batch."""
        assert inputs.labels is not None
        labels, known = inputs.labels.clamp_min(0), inputs.labels >= 0
        vectors = encoded.vectors.masked_fill(~encoded.present[..., None], 0)
        has = encoded.present & known[:, None]
        subsets = self.inside & encoded.present[:, None]
        losses = self._cross_entropies(vectors, subsets.to(vectors.dtype), labels)
        of_each, means = contributions(losses, has, self.shapley.to(losses.dtype))
        weights = self._weights(means.detach(), has)

        whole = (subsets == self.inside).all(2) & (self.inside.sum(1) > 1) & known[:, None]
        seen = (weights.sqrt() * encoded.present)[:, None].to(vectors.dtype)
        fused = self._cross_entropies(vectors, seen, labels)[:, 0]
        single = losses[:, [1 << m for m in range(has.shape[1])]] * _repeats(of_each, has)
        alone = (single * has).sum(0) / has.sum(0).clamp_min(1)
        value = (
            masked_mean(losses, whole)
            + masked_mean(fused, has.any(1)) / 2
            + (weights.clamp_min(1) * alone).sum()
            + self.balance * (means.detach().max() - means.min())
        )
        return Loss(value, {f"contribution_{m}": part for m, part in enumerate(means.detach())})

    def _cross_entropies(self, vectors: Tensor, subsets: Tensor, labels: Tensor) -> Tensor:
        logits = self.head(vectors, subsets)
        targets = labels[:, None].expand(logits.shape[:2])
        return functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)

    def _weights(self, means: Tensor, has: Tensor) -> Tensor:
        """Return the weights after one more batch: a modality that it lacks keeps its average."""
        if self.training:
            kept = torch.where(has.any(0), DECAY, 1.0)
            self.contributions.mul_(kept).add_((1 - kept) * means.to(self.contributions.dtype))
            self.remaining.mul_(kept)
        weights = modality_weights(self.contributions / (1 - self.remaining).clamp_min(1e-12))
        for encoder in self._encoder if self.training else ():
            encoder.weights.copy_(weights)
        return weights


def _repeats(of_each: Tensor, has: Tensor) -> Tensor:
    """Return (B, K) how often an instance counts in the head of each modality: 1 to 2 in its weakest, else 1."""
    most = of_each.masked_fill(~has, -torch.inf).max(1, keepdim=True).values
    least = of_each.masked_fill(~has, torch.inf).min(1, keepdim=True).values
    share = (of_each / most.clamp_min(LEAST)).clamp(0, 1)
    weakest = has & (of_each == least) & (has.sum(1, keepdim=True) > 1)
    return torch.where(weakest, 2 - share, 1.0).to(of_each.dtype)
