"""What the arrays of NumPy that go from room to room hold."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "Groups", "Mask"]

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

Groups = npt.NDArray[np.int64]
"""(n,) one number for all instances that are not independent of each other."""
