"""A few rows in NumPy: calling torch takes longer than what is multiplied for them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

__all__ = ["FloatArray", "RowMap", "unit_rows"]

FloatArray = npt.NDArray[np.float32]

RowMap = Callable[[FloatArray], FloatArray]
"""From (B, p) rows of one modality to its (B, d) unit vectors."""

_SHORTEST = np.float32(1e-12)


def unit_rows(vectors: FloatArray) -> FloatArray:
    """Return (B, d) vectors at unit length; zeros stay zeros."""
    lengths = np.sqrt(np.square(vectors).sum(axis=1, keepdims=True))
    unit: FloatArray = vectors / np.maximum(lengths, _SHORTEST, out=lengths)
    return unit
