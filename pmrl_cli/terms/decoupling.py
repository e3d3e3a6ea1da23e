"""What keeps the common and the unique part of a modality apart, and the common parts of all alike in distribution.

Source: "DecAlign: Hierarchical Cross-Modal Alignment for Decoupled Multimodal Representation Learning", ICLR 2026
    (arXiv 2503.11892) and its public code.
Departs: any number of modalities and missing ones; the moments and the mean discrepancy are taken of the common parts
    themselves (there of a further network's output that nothing else reads, which can absorb all of it); beside the
    squared cosine of each instance there is a penalty on the covariance of the two parts, without which both hold
    everything, at right angles.
"""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

__all__ = ["linear_dependence", "mean_discrepancy", "moment_difference", "squared_cosine"]

_TINY = 1e-12


def squared_cosine(common: Tensor, unique: Tensor, present: Tensor) -> Tensor:
    """Return the mean of cos(c, s)^2 over instances and the modalities that they have.

    The square is that of the public code; the cosine itself, as the paper prints it, would be driven to -1.

    Args:
        common: (B, K, d), anything finite where absent.
        unique: (B, K, d), likewise.
        present: (B, K) bool.
    """
    first, second = (v.masked_fill(~present[..., None], 0) for v in (common, unique))
    lengths = first.square().sum(2) * second.square().sum(2)
    squares = (first * second).sum(2).square() / lengths.clamp_min(_TINY)
    return (squares * present).sum() / present.sum().clamp_min(1)


def _centred(vectors: Tensor, has: Tensor) -> Tensor:
    """Return (B, d) less their mean over the rows in ``has`` (B,); zeros elsewhere."""
    known = vectors.masked_fill(~has[:, None], 0)
    return (known - known.sum(0) / has.sum().clamp_min(1)).masked_fill(~has[:, None], 0)


def linear_dependence(common: Tensor, unique: Tensor, present: Tensor) -> Tensor:
    """Return how much of one part a linear map can say of the other, the mean over modalities.

    ||S' C||_F^2 / (||S' S||_F ||C' C||_F) of the centred batch, in [0, 1] (linear CKA): ||S' C||_F^2 / N^2 made free
    of scale, so that it is not lowered by small vectors. By chance it is of the order d / N.

    Args:
        common: (B, K, d), anything finite where absent.
        unique: (B, K, d'), likewise.
        present: (B, K) bool.

    Source: Kornblith et al., "Similarity of Neural Network Representations Revisited", ICML 2019.
    """
    values = []
    for m in range(common.shape[1]):
        c, s = (_centred(v[:, m], present[:, m]) for v in (common, unique))
        between, within_c, within_s = ((a.T @ b).square().sum() for a, b in ((s, c), (c, c), (s, s)))
        values.append(between / (within_c * within_s + _TINY).sqrt())
    counted = present.sum(0) > 1
    return (torch.stack(values) * counted).sum() / counted.sum().clamp_min(1)


def moment_difference(vectors: Tensor, present: Tensor) -> Tensor:
    """Return how much the mean, covariance and skewness of modalities differ, the mean over their pairs.

    Mean squared differences, of vectors times sqrt(d): unit vectors have entries of mean square 1 then. Covariances
    are divided by N - 1, skewness is E[(z - mu)^3] / var^1.5 with variances of 1e-6 or more, as in the public code.

    Args:
        vectors: (B, K, d), unit length where present, anything finite elsewhere.
        present: (B, K) bool.
    """
    scale = vectors.shape[2] ** 0.5
    moments = []
    for m in range(vectors.shape[1]):
        has = present[:, m]
        count = has.sum().clamp_min(1)
        known = vectors[:, m].masked_fill(~has[:, None], 0) * scale
        centred = _centred(known, has)
        variance = (centred.square().sum(0) / count).clamp_min(1e-6)
        covariance = centred.T @ centred / (count - 1).clamp_min(1)
        moments.append((known.sum(0) / count, covariance, centred.pow(3).sum(0) / count / variance.pow(1.5)))
    return _over_pairs(
        [
            torch.stack([(a - b).square().mean() for a, b in zip(moments[m], moments[n], strict=True)]).sum()
            for m, n in combinations(range(len(moments)), 2)
        ],
        present,
    )


def mean_discrepancy(vectors: Tensor, present: Tensor, bandwidth: float = 1.0) -> Tensor:
    """Return the squared maximum mean discrepancy of modalities, the mean over their pairs; biased, so at least 0.

    The kernel is exp(-||a - b||^2 / (2 bandwidth)).

    Args:
        vectors: (B, K, d), unit length where present, anything finite elsewhere.
        present: (B, K) bool.
        bandwidth: squared.

    Source: Gretton et al., "A Kernel Two-Sample Test", JMLR 2012.
    """
    known = vectors.masked_fill(~present[..., None], 0)
    shares = present.to(known.dtype) / present.sum(0).clamp_min(1)

    def expected(m: int, n: int) -> Tensor:
        squares = known[:, m].square().sum(1)[:, None] + known[:, n].square().sum(1) - 2 * known[:, m] @ known[:, n].T
        return shares[:, m] @ (-squares.clamp_min(0) / (2 * bandwidth)).exp() @ shares[:, n]

    within = [expected(m, m) for m in range(vectors.shape[1])]
    pairs = combinations(range(vectors.shape[1]), 2)
    return _over_pairs([within[m] + within[n] - 2 * expected(m, n) for m, n in pairs], present)


def _over_pairs(values: list[Tensor], present: Tensor) -> Tensor:
    """Return the mean of values of pairs of modalities, over the pairs that two instances each have."""
    if not values:
        return torch.zeros((), device=present.device)
    enough = present.sum(0) > 1
    counted = torch.stack([enough[m] & enough[n] for m, n in combinations(range(present.shape[1]), 2)])
    return (torch.stack(values) * counted).sum() / counted.sum().clamp_min(1)
