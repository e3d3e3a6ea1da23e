"""What a state is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

__all__ = ["Header"]


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
