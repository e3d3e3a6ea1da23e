"""What a diagnosis finds of single instances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa

from pmrl_cli.array_types import Array

__all__ = ["InstanceRows"]


class InstanceRows(NamedTuple):
    """What is known of B instances with two modalities or more.

    Args:
        ids: (B,) Arrow large_string.
        rho: (B,) share of the leading eigenvalue.
        signed: (B,) squared length of the mean unit vector.
        agreement: (B, K) cosine of each vector with the consensus of the others, centred; NaN where a modality is
            absent.
        score: (B,) the higher, the more suspect.
        suspect_modality: (B,) modality (or pair) with the most against it.
        probability: (B,) of being mispaired.
    """

    ids: pa.LargeStringArray
    rho: Array
    signed: Array
    agreement: Array
    score: Array
    suspect_modality: Sequence[str]
    probability: Array
