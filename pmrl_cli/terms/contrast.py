"""Symmetric contrasts with masks, and what terms share: a learned temperature, masked means."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pmrl_cli.batch import SINGLE, BatchGroup, Encoded, Inputs, Loss
from pmrl_cli.errors import UsageError
from pmrl_cli.terms.log_sums import Pairs, log_sums
from pmrl_cli.terms.protocol import Term

__all__ = [
    "LearnedTemperature",
    "PairwiseContrast",
    "all_pairs",
    "info_nce",
    "masked_mean",
    "matches",
    "other_modalities",
    "pairwise_contrast",
    "random_subsets",
    "symmetric_cross_entropy",
    "symmetric_info_nce",
    "zero_where_absent",
]


def masked_mean(values: Tensor, mask: Tensor, whole: Tensor | None = None) -> Tensor:
    """Return the mean of ``values`` where ``mask`` is True; a zero connected to the graph if it is nowhere True.

    Args:
        values: any shape, finite wherever ``mask`` is False.
        mask: bool, the same shape.
        whole: the mask of all processes, where this is one of several: then what is returned is this one's share,
            and the shares of all add up to the mean.

    Returns: scalar.
    """
    return (values * mask).sum() / (mask if whole is None else whole).sum().clamp_min(1)


def zero_where_absent(vectors: Tensor, has: Tensor) -> Tensor:
    """Return (..., d) vectors with zeros where ``has`` (...) is False: the same ones where nothing is absent.

    Off the CPU always a copy: to ask whether anything is absent is to wait for the device.
    """
    if has.device.type == "cpu" and bool(has.all()):
        return vectors
    return vectors.masked_fill(~has[..., None], 0)


def matches(inputs: Inputs, group: BatchGroup = SINGLE) -> Tensor | None:
    """Return which other instances show the same thing as one, so that they are no negatives of it.

    Args:
        inputs: of the local instances.
        group: the processes that share the batch.

    Returns: (b, B) bool, False for an instance and itself; None where all instances differ.
    """
    if inputs.match is None:
        return None
    same: Tensor = inputs.match[:, None] == group.gather(inputs.match)
    same.diagonal(group.start).fill_(0)
    return same


def info_nce(
    first: Tensor,
    second: Tensor,
    has_first: Tensor,
    has_second: Tensor,
    pairs: Pairs,
    group: BatchGroup = SINGLE,
    same: Tensor | None = None,
) -> Tensor:
    """Return, for every pair and instance, InfoNCE from ``first`` to ``second`` and back, averaged.

    The negatives of an instance are all other instances, of all processes, that have the vector searched for and do
    not show the same thing. One matrix product serves both directions; of several processes each makes its own rows
    of it, and only the sums over columns are exchanged.

    Args:
        first: (M, b, d) of this process, divided by the temperature; zero where absent. In float32 the temperature
            must be ``LearnedTemperature.LOW`` or more.
        second: (N, B, d) of all processes, unit length; zero where absent.
        has_first: (M, b) bool.
        has_second: (N, B) bool.
        pairs: P pairs of one of M and one of N, at least one.
        group: the processes that share the batch.
        same: (b, B) of ``matches``; None where all instances differ.

    Returns: (P, b), in nats, 0 where an instance lacks either vector.

    Source: van den Oord, Li, Vinyals, "Representation Learning with Contrastive Predictive Coding", 2018; both ways
        as in Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021.
    """
    rows, columns, own = log_sums(first, second, has_first, has_second, pairs, left_out=same, start=group.start)
    columns = group.gather(columns[None], each=1).logsumexp(0)
    here = group.local(has_second.mT).mT
    both = torch.stack([has_first[m] & here[n] for m, n in pairs])
    return ((rows + group.local(columns.mT).mT) / 2 - own).masked_fill(~both, 0)


def symmetric_info_nce(
    first: Tensor,
    second: Tensor,
    present: Tensor,
    temperature: Tensor | float,
    group: BatchGroup = SINGLE,
    same: Tensor | None = None,
) -> Tensor:
    """Return ``info_nce`` of one pair of vectors.

    Args:
        first: (b, d) unit length where present, anything elsewhere.
        second: (b, d) likewise.
        present: (b, 2) bool: has ``first``, has ``second``.
        temperature: scalar that divides the cosines; in float32 ``LearnedTemperature.LOW`` or more.
        group: as there.
        same: as there.

    Returns: (b,) in nats, 0 where an instance lacks either vector. To be averaged over ``present.all(1)``.
    """
    known = [zero_where_absent(vectors, has) for vectors, has in zip((first, second), present.mT, strict=True)]
    has_first, has_second = present.mT[:1], group.gather(present[:, 1])[None]
    divided, searched = (known[0] * (1 / temperature))[None], group.gather(known[1])[None]
    return info_nce(divided, searched, has_first, has_second, ((0, 0),), group, same)[0]


def symmetric_cross_entropy(
    scores: Tensor, present: Tensor, smoothing: float = 0.0, same: Tensor | None = None
) -> Tensor:
    """Return, for every instance, the cross-entropy of its own score in its row and in its column, averaged.

    As ``symmetric_info_nce``, for scores that are no inner products.

    Args:
        scores: (B, B) of instance i as first against instance j as second, finite everywhere.
        present: (B, 2) bool: whether an instance can stand first, second. Others are no candidates either.
        smoothing: share of the target spread evenly over the candidates (label smoothing), in [0, 1).
        same: (B, B) of ``matches``: no candidates of each other; None where all instances differ.

    Returns: (B,) in nats, 0 where an instance cannot stand on both sides.
    """
    has_first, has_second = present.unbind(1)
    both = present.all(1)
    candidates = scores[has_first][:, has_second]
    if same is None:
        forward, backward = (candidates.logsumexp(side) - smoothing * candidates.mean(side) for side in (1, 0))
    else:
        left_out = same[has_first][:, has_second]
        kept, known = candidates.masked_fill(left_out, -torch.inf), candidates.masked_fill(left_out, 0)
        # What stands for an instance that is no candidate of any other is dropped below.
        forward, backward = (
            kept.logsumexp(side) - smoothing * known.sum(side) / (~left_out).sum(side).clamp_min(1) for side in (1, 0)
        )
    loss = (forward[both[has_first]] + backward[both[has_second]]) / 2 - (1 - smoothing) * scores.diagonal()[both]
    return loss.new_zeros(len(both)).masked_scatter(both, loss)


def all_pairs(modalities: int) -> list[tuple[int, int]]:
    """Return every unordered pair of K modalities, the smaller index first."""
    return [(m, n) for m in range(modalities) for n in range(m + 1, modalities)]


def pairwise_contrast(
    embeddings: Tensor,
    present: Tensor,
    temperature: Tensor | float,
    pairs: Pairs | None = None,
    group: BatchGroup = SINGLE,
    same: Tensor | None = None,
) -> Tensor:
    """Return symmetric InfoNCE over pairs of modalities, the mean over (pair, instance that has both).

    Args:
        embeddings: (b, K, d) unit length where present, anything finite elsewhere.
        present: (b, K) bool.
        temperature: as for ``symmetric_info_nce``.
        pairs: of modalities; all by default.
        group: the processes that share the batch.
        same: as for ``info_nce``.

    Returns: scalar, this process's part of the mean; a zero connected to the graph if no instance has two
        modalities.

    Source: Tian, Krishnan, Isola, "Contrastive Multiview Coding", ECCV 2020 (full graph).
    """
    if pairs is None:
        pairs = all_pairs(present.shape[1])
    if not pairs:
        return embeddings[:0].sum()
    whole = group.gather(present)
    vectors = group.gather(zero_where_absent(embeddings, present))
    # Times its inverse: the gradient of a quotient takes three passes more.
    scaled = group.local(vectors) * (1 / temperature)
    losses = info_nce(scaled.transpose(0, 1), vectors.transpose(0, 1), present.mT, whole.mT, pairs, group, same)
    both, both_whole = (torch.stack([of[:, m] & of[:, n] for m, n in pairs]) for of in (present, whole))
    return masked_mean(losses, both, both_whole)


def other_modalities(modalities: int, anchor: int) -> list[int]:
    """Return the indices of all modalities but the anchor.

    Args:
        modalities: K.
        anchor: index of the anchor, in the order of the modalities' names (that of ``pmrl inspect``).

    Raises: UsageError if there is no such modality.
    """
    if not 0 <= anchor < modalities:
        raise UsageError(
            what="no such anchor",
            found=f"anchor={anchor} with {modalities} modalities",
            expected=f"0 to {modalities - 1}, in the order of pmrl inspect",
            next_step="Fix --set anchor.",
        )
    return [m for m in range(modalities) if m != anchor]


def random_subsets(modalities: int, device: torch.device | str = "cpu") -> Tensor:
    """Draw two disjoint non-empty subsets of the modalities from torch's default generator there.

    Two sizes are drawn (the first uniform, the second uniform over what is left), then their members. Two
    modalities give the two single ones. All of it is drawn on the device, so that a captured step draws again.

    Args:
        modalities: K >= 2.
        device: of the result.

    Returns: (2, K) bool.
    """
    size = torch.randint(1, modalities, (), device=device)
    end = size + 1 + (torch.rand((), device=device) * (modalities - size)).long()
    place = torch.rand(modalities, device=device).argsort()
    return torch.stack([place < size, (place >= size) & (place < end)])


class LearnedTemperature(nn.Module):
    """A trainable temperature, kept in [LOW, HIGH].

    The parameter is its logarithm and is put back into range on every use, so that it never rests where its
    gradient is zero.

    Args:
        start: temperature at first.

    Raises: UsageError for a start out of that range.
    """

    LOW, HIGH = 0.015, 1.0
    """exp(1 / LOW) = e^67 and its inverse are ordinary float32 numbers, summed over a batch too: see ``log_sums``."""

    def __init__(self, start: float) -> None:
        super().__init__()
        if not self.LOW <= start <= self.HIGH:
            raise UsageError(
                what="temperature out of range",
                found=f"{start:g}",
                expected=f"{self.LOW:g} to {self.HIGH:g}",
                next_step="Fix --set.",
            )
        self.log = nn.Parameter(torch.tensor(math.log(start)))

    def forward(self) -> Tensor:
        """Return the temperature, a scalar in [LOW, HIGH]."""
        with torch.no_grad():
            self.log.clamp_(math.log(self.LOW), math.log(self.HIGH))
        return self.log.exp()


class PairwiseContrast(Term):
    """Symmetric InfoNCE over pairs of modalities: the mean over (pair, instance that has both).

    The negatives of an instance are all others that have the modality searched for, complete or not, and do not show
    the same thing.

    Args:
        temperature: divides the cosines at first, in [0.015, 1]; it is learned.
        anchor: index of the modality that every pair holds; None takes all pairs.
    """

    local = on_device = True

    def __init__(self, *, temperature: float = 0.1, anchor: int | None = None) -> None:
        super().__init__()
        self.temperature = LearnedTemperature(temperature)
        self.anchor = anchor

    def check(self, modalities: int) -> None:
        """Raise UsageError if there is no such anchor."""
        if self.anchor is not None:
            other_modalities(modalities, self.anchor)

    def forward(self, encoded: Encoded, inputs: Inputs, group: BatchGroup = SINGLE) -> Loss:
        """Return the local loss of a batch."""
        modalities = encoded.present.shape[1]
        pairs = all_pairs(modalities)
        if self.anchor is not None:
            pairs = [(self.anchor, m) for m in other_modalities(modalities, self.anchor)]
        temperature = self.temperature()
        same = matches(inputs, group)
        value = pairwise_contrast(encoded.vectors, encoded.present, temperature, pairs, group, same)
        value = value + 0 * temperature
        return Loss(value, {"temperature": temperature.detach() / group.size})
