"""Subsets of modalities, and the Shapley value of each modality from the values of all subsets.

A subset of K modalities is the number whose bit m says whether modality m is in it: 0 is the empty one, 2^K - 1 all.
"""

from __future__ import annotations

from math import factorial

import numpy as np
import numpy.typing as npt

from pmrl_cli.errors import UsageError

__all__ = ["MOST_MODALITIES", "check_modalities", "conditional_weights", "members", "shapley_weights"]

MOST_MODALITIES = 6
"""Every subset is valued, and there are 2^K of them."""


def check_modalities(modalities: int) -> None:
    """Raise UsageError for more modalities than all subsets can be valued of."""
    if modalities > MOST_MODALITIES:
        raise UsageError(
            what="too many modalities to value every subset of them",
            found=f"{modalities}, which have {2**modalities:,} subsets",
            expected=f"{MOST_MODALITIES} or fewer",
            next_step=f"Name {MOST_MODALITIES} of the files.",
        )


def members(modalities: int) -> npt.NDArray[np.bool_]:
    """Return (2^K, K) which modalities are in each subset.

    Args:
        modalities: K.
    """
    subsets = np.arange(2**modalities)[:, None]
    inside: npt.NDArray[np.bool_] = (subsets >> np.arange(modalities) & 1).astype(bool)
    return inside


def shapley_weights(modalities: int) -> npt.NDArray[np.float64]:
    """Return the (K, 2^K) matrix from the values of all subsets to the Shapley value of each modality.

    phi_m = sum over subsets S without m of |S|! (K - |S| - 1)! / K! (v(S with m) - v(S)). Over all modalities the
    values add up to v(all) - v(none). For two modalities phi_m is the mean of what m says alone and of what it adds
    to the other.

    Args:
        modalities: K.

    Source: Shapley, "A Value for n-Person Games", Contributions to the Theory of Games II, 1953.
    """
    inside = members(modalities)
    sizes = inside.sum(axis=1)
    weights = np.zeros((modalities, len(inside)))
    for m in range(modalities):
        for subset in np.flatnonzero(~inside[:, m]):
            size = int(sizes[subset])
            weight = factorial(size) * factorial(modalities - size - 1) / factorial(modalities)
            weights[m, subset | 1 << m] = weight
            weights[m, subset] = -weight
    return weights


def conditional_weights(modalities: int) -> npt.NDArray[np.float64]:
    """Return the (K, 2^K) matrix from the values of all subsets to what each modality adds to all others.

    Args:
        modalities: K.
    """
    weights = np.zeros((modalities, 2**modalities))
    everything = 2**modalities - 1
    weights[:, everything] = 1
    for m in range(modalities):
        weights[m, everything ^ 1 << m] -= 1
    return weights
