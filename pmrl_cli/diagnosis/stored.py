"""Arrays of a saved state, held to the type and shape they must have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["take"]


def take(
    arrays: Mapping[str, npt.NDArray[Any]], name: str, dtype: npt.DTypeLike, shape: tuple[int | None, ...]
) -> npt.NDArray[Any]:
    """Return a copy of an array.

    Args:
        arrays: by name.
        name: of the array.
        dtype: it must have.
        shape: it must have; None for any length.

    Raises: ValueError if it is not there, or of another type or shape.
    """
    if name not in arrays:
        message = f"no array {name!r}"
        raise ValueError(message)
    array = arrays[name]
    fits = len(array.shape) == len(shape) and all(
        want is None or have == want for have, want in zip(array.shape, shape, strict=True)
    )
    if array.dtype != np.dtype(dtype) or not fits:
        message = f"array {name!r} is {array.dtype} {array.shape}, not {np.dtype(dtype)} {shape}"
        raise ValueError(message)
    return array.copy()
