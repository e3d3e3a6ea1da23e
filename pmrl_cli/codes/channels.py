"""Which dimensions of a space to keep: those in which the codes of a codebook differ, and do not merely agree."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pmrl_cli.array_types import Array
from pmrl_cli.errors import UsageError

__all__ = ["AGREEMENT", "channel_criterion", "choose_channels"]

AGREEMENT = 0.7
"""Weight lambda of the agreement between codes against their variance."""


def channel_criterion(codebook: npt.NDArray[np.floating], agreement: float = AGREEMENT) -> Array:
    """Return how much codes differ in each dimension; the larger, the better it is to keep.

    criterion_d = -lambda S_d + (1 - lambda) V_d, with S_d the mean of E_id E_jd over i != j and V_d the unbiased
    variance of E_id over i. Since S_d = mean_d^2 - V_d / N, it is -lambda mean_d^2 + (1 - lambda + lambda / N) V_d,
    which takes O(N D) and not O(N^2 D). Where codes are centred (a space of unit vectors around the origin) it is
    the variance alone; it is not the same after a rotation of the space.

    Args:
        codebook: (N, D) codes, N of 2 or more.
        agreement: lambda, in [0, 1].

    Returns: (D,).

    Source: Huang et al., "Unlocking the Potential of Multimodal Unified Discrete Representation through Training-Free
        Codebook Optimization and Hierarchical Alignment" (TOC), 2024 (arXiv 2403.05168); departs: the closed form,
        where there two loops go over the codes.
    """
    codes = np.asarray(codebook, dtype=np.float64)
    criterion: Array = -agreement * codes.mean(0) ** 2 + (1 - agreement + agreement / len(codes)) * codes.var(
        0, ddof=1
    )
    return criterion


def choose_channels(codebook: npt.NDArray[np.floating], keep: int) -> npt.NDArray[np.int64]:
    """Return (keep,) ascending dimensions with the largest criterion; of equals the first.

    Args:
        codebook: (N, D) codes.
        keep: how many, in 1 .. D.

    Raises: UsageError for more dimensions than there are.
    """
    dim = codebook.shape[1]
    if not 1 <= keep <= dim:
        raise UsageError(
            what="cannot keep so many channels",
            found=f"--keep-channels {keep}",
            expected=f"1 to {dim}",
            next_step="Lower --keep-channels.",
        )
    order = np.argsort(-channel_criterion(codebook), kind="stable")
    return np.sort(order[:keep])
