"""What a state is about, and the check of the type and shape of its arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

__all__ = ["Header", "require_array"]


@dataclass(frozen=True)
class Header:
    """What a state is about; only states that agree in all of it merge.

    Args:
        names: modalities, in order.
        dims: columns of each in the space that is diagnosed.
        columns: columns of each in the files (before a model).
        group: side column of groups, or None.
        label: side column of labels, or None.
        seed: of the hashes.
        reservoir: instances of the reservoir.
        moments: instances in the joint moments at most.
        model: digest of the model the vectors come from; empty for none.
        shards: of how many equal shares of the instances this is one, or several; 1 for all of them.
        match: side column of instances that show the same thing, or None.
    """

    names: tuple[str, ...]
    dims: tuple[int, ...]
    columns: tuple[int, ...]
    group: str | None
    label: str | None
    seed: int
    reservoir: int
    moments: int
    model: str = ""
    shards: int = 1
    match: str | None = None

    @property
    def unit(self) -> str | None:
        """The side column of what is independent: the groups, else what shows the same thing; None for instances."""
        return self.match if self.group is None else self.group

    @property
    def shared(self) -> bool:
        """Whether the modalities can share a space: they have equally many columns."""
        return len(set(self.dims)) == 1

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what ``as_dict`` gave."""
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        return cls(**fields)


def require_array(
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
