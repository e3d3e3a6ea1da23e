"""The pieces that objectives share: masked symmetric contrasts, a learned temperature, the anchor, masked means."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pmrl_cli.errors import UsageError

__all__ = [
    "LearnedTemperature",
    "all_pairs",
    "masked_mean",
    "pairwise_contrast",
    "part_anchor",
    "random_subsets",
    "symmetric_cross_entropy",
    "symmetric_info_nce",
]


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of ``values`` where ``mask`` is True; a zero connected to the graph if it is nowhere True.

    Args:
        values: any shape, finite wherever ``mask`` is False.
        mask: bool, the same shape.

    Returns: scalar.
    """
    return (values * mask).sum() / mask.sum().clamp_min(1)


def symmetric_info_nce(first: Tensor, second: Tensor, present: Tensor, temperature: Tensor | float) -> Tensor:
    """Return, for every instance, InfoNCE from ``first`` to ``second`` and back, averaged.

    The negatives of an instance are all other instances of the batch that have the vector searched for. One B x B
    matrix product serves both directions.

    Args:
        first: (B, d) unit length where present, anything finite elsewhere.
        second: (B, d) likewise.
        present: (B, 2) bool: has ``first``, has ``second``.
        temperature: scalar > 0, divides the cosines.

    Returns: (B,) in nats, 0 where an instance lacks either vector. To be averaged over ``present.all(1)``.

    Source: van den Oord, Li, Vinyals, "Representation Learning with Contrastive Predictive Coding", 2018; both ways
        as in Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021.
    """
    has_first, has_second = present.unbind(1)
    both = present.all(1)
    logits = first[has_first] @ second[has_second].mT / temperature
    forward = logits.logsumexp(1)[both[has_first]]
    backward = logits.logsumexp(0)[both[has_second]]
    loss = (forward + backward) / 2 - (first[both] * second[both]).sum(1) / temperature
    return loss.new_zeros(len(both)).masked_scatter(both, loss)


def symmetric_cross_entropy(scores: Tensor, present: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return, for every instance, the cross-entropy of its own score in its row and in its column, averaged.

    As ``symmetric_info_nce``, for scores that are no inner products.

    Args:
        scores: (B, B) of instance i as first against instance j as second, finite everywhere.
        present: (B, 2) bool: whether an instance can stand first, second. Others are no candidates either.
        smoothing: share of the target spread evenly over the candidates (label smoothing), in [0, 1).

    Returns: (B,) in nats, 0 where an instance cannot stand on both sides.
    """
    has_first, has_second = present.unbind(1)
    both = present.all(1)
    candidates = scores[has_first][:, has_second]
    forward, backward = (candidates.logsumexp(side) - smoothing * candidates.mean(side) for side in (1, 0))
    loss = (forward[both[has_first]] + backward[both[has_second]]) / 2 - (1 - smoothing) * scores.diagonal()[both]
    return loss.new_zeros(len(both)).masked_scatter(both, loss)


def all_pairs(modalities: int) -> list[tuple[int, int]]:
    """Return every unordered pair of K modalities, the smaller index first."""
    return [(m, n) for m in range(modalities) for n in range(m + 1, modalities)]


def pairwise_contrast(
    embeddings: Tensor,
    present: Tensor,
    temperature: Tensor | float,
    pairs: Sequence[tuple[int, int]] | None = None,
) -> Tensor:
    """Return symmetric InfoNCE over pairs of modalities, the mean over (pair, instance that has both).

    Args:
        embeddings: (B, K, d) unit length where present, anything finite elsewhere.
        present: (B, K) bool.
        temperature: scalar > 0.
        pairs: of modalities; all by default.

    Returns: scalar, a zero connected to the graph if no instance has two modalities.

    Source: Tian, Krishnan, Isola, "Contrastive Multiview Coding", ECCV 2020 (full graph).
    """
    modalities = embeddings.unbind(1)
    if pairs is None:
        pairs = all_pairs(len(modalities))
    if not pairs:
        return embeddings[:0].sum()
    losses = [symmetric_info_nce(modalities[m], modalities[n], present[:, [m, n]], temperature) for m, n in pairs]
    both = torch.stack([present[:, m] & present[:, n] for m, n in pairs])
    return masked_mean(torch.stack(losses), both)


def part_anchor(modalities: int, anchor: int) -> list[int]:
    """Return the indices of all modalities but the anchor.

    Args:
        modalities: K.
        anchor: index of the anchor, in the order of the modalities' names (that of ``pmrl inspect``).

    Raises: UsageError if there is no such modality.
    """
    if not 0 <= anchor < modalities:
        what = "no such anchor"
        raise UsageError(
            what,
            found=f"anchor={anchor} with {modalities} modalities",
            expected=f"0 to {modalities - 1}, in the order of pmrl inspect",
            next_step="Mend --set anchor.",
        )
    return [m for m in range(modalities) if m != anchor]


def random_subsets(modalities: int) -> Tensor:
    """Draw two disjoint non-empty subsets of the modalities from torch's default generator.

    Two sizes are drawn (the first uniform, the second uniform over what is left), then their members. Two
    modalities give the two single ones.

    Args:
        modalities: K >= 2.

    Returns: (2, K) bool, on the CPU.
    """
    order = torch.randperm(modalities)
    size = int(torch.randint(1, modalities, ()))
    end = size + int(torch.randint(1, modalities - size + 1, ()))
    subsets = torch.zeros(2, modalities, dtype=torch.bool)
    subsets[0, order[:size]] = True
    subsets[1, order[size:end]] = True
    return subsets


class LearnedTemperature(nn.Module):
    """A trainable temperature, kept in [LOW, HIGH].

    The parameter is its logarithm and is put back into range on every use, so that it never rests where its
    gradient is zero.

    Args:
        start: temperature at first.

    Raises: UsageError for a start out of that range.
    """

    LOW, HIGH = 0.01, 1.0

    def __init__(self, start: float) -> None:
        super().__init__()
        if not self.LOW <= start <= self.HIGH:
            what = "temperature out of range"
            raise UsageError(
                what, found=f"{start:g}", expected=f"{self.LOW:g} to {self.HIGH:g}", next_step="Mend --set."
            )
        self.log = nn.Parameter(torch.tensor(math.log(start)))

    def forward(self) -> Tensor:
        """Return the temperature, a scalar in [LOW, HIGH]."""
        with torch.no_grad():
            self.log.clamp_(math.log(self.LOW), math.log(self.HIGH))
        return self.log.exp()
