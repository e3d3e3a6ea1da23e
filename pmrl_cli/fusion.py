"""One vector, or one score, from the several modalities of an instance.

``leading`` takes the sign-aware leading direction of the modalities, the same for every query. ``weighted`` takes
their mean with the weights softmax(<t, z_m> / WEIGHT_TEMPERATURE), brought to unit length, where t is what they are
compared with: a modality that disagrees with t counts little. In retrieval t is the candidate, so that every
candidate is compared with a consensus of its own; without a query it is the leading direction.

Source: Mehrish, Nag, Vascon, *SCALAR*, 2026 (weights over the observed modalities, temperature .1). Departs: a
consensus shorter than ``RESULTANT_FLOOR`` has that length, and with no query the leading direction stands for it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pmrl_cli.errors import check_known
from pmrl_cli.spectrum import RESULTANT_FLOOR, spectrum

__all__ = ["FUSIONS", "WEIGHT_TEMPERATURE", "check_fusion", "fuse", "weighted_scores"]

FUSIONS = ("leading", "weighted")

WEIGHT_TEMPERATURE = 0.1
"""Difference of two cosines that makes one weight e times the other."""


def check_fusion(fusion: str) -> None:
    """Refuse a name that is not in ``FUSIONS``.

    Raises: UsageError.
    """
    check_known("fusion", fusion, FUSIONS)


def fuse(vectors: Tensor, present: Tensor, fusion: str = "leading") -> Tensor:
    """Return one vector for each instance, from the modalities it has.

    Args:
        vectors: (B, K, d) floating point, unit length where present, zero elsewhere.
        present: (B, K) bool; a present vector of length zero counts as absent.
        fusion: ``leading``, the sign-aware leading direction, or ``weighted``, the consensus weighted by the
            agreement of each modality with that direction.

    Returns: (B, d), unit length; zero where nothing is present.

    Raises: UsageError for another ``fusion``.
    """
    check_fusion(fusion)
    leading = spectrum(vectors, present, sign_aware=True).leading_direction
    if fusion == "leading":
        return leading
    member = present & vectors.any(2)
    weights = _weights(vectors @ leading[..., None], member)
    return torch.nn.functional.normalize((weights * vectors).sum(1), dim=1)


def weighted_scores(cosines: Tensor, gram: Tensor, present: Tensor) -> Tensor:
    """Return the cosine of each candidate t with the consensus that t itself weights: <t, mu_t>.

    With a_m = <t, z_m> and w = softmax(a / WEIGHT_TEMPERATURE) it is sum w a / sqrt(w' G w), so that no consensus is
    ever formed. For one modality it is the cosine.

    Args:
        cosines: (q, K, C), of the modalities z_m of q queries with C candidates t.
        gram: (q, K, K), of the modalities with each other.
        present: (q, K) bool; a vector of length zero (0 on the diagonal of ``gram``) counts as absent.

    Returns: (q, C) in [-1, 1] but for rounding; 0 where no modality is present.
    """
    weights = _weights(cosines, present & (gram.diagonal(dim1=1, dim2=2) > 0))
    square = (torch.bmm(gram, weights) * weights).sum(1)
    # A float32 square is off by some 1e-7: below the floor it, and the ratio, would be noise or NaN.
    return (weights * cosines).sum(1) / square.clamp_min(RESULTANT_FLOOR**2).sqrt()


def _weights(cosines: Tensor, member: Tensor) -> Tensor:
    """Return the (q, K, C) weights; where an instance has no member they are uniform, over vectors that are zero."""
    logits = cosines / WEIGHT_TEMPERATURE
    return logits.masked_fill_(~member[..., None], torch.finfo(cosines.dtype).min).softmax(1)
