"""Fewer dimensions for a whole space, members together: its principal axes, and unit length again.

A vector v becomes v A / |v A|, with A the leading eigenvectors of the mean of v v' over the training vectors of all
modalities, not centred: of all projections these keep inner products best in mean square (Eckart and Young,
Psychometrika 1, 1936).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["principal_axes", "reduced"]


def principal_axes(moment: Tensor) -> npt.NDArray[np.float32]:
    """Return the (d, d) principal axes of a space, those of most energy first, each with its largest entry positive.

    Args:
        moment: (d, d) float64, sum of v v' over training vectors.
    """
    axes = torch.linalg.eigh(moment)[1].flip(1)
    signs = axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    found: npt.NDArray[np.float32] = (axes * signs).float().contiguous().numpy()
    return found


def reduced(vectors: Tensor, axes: Tensor) -> Tensor:
    """Return the (..., r) unit vectors of (..., d) ones along (d, r) axes; zeros stay zeros."""
    along = vectors @ axes
    lengths: Tensor = torch.linalg.vector_norm(along, dim=-1, keepdim=True)
    return along * lengths.clamp_min(1e-12).reciprocal()
