"""The text files of a model by name, some of which stay on disk until they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

__all__ = ["Texts"]


class Texts(Mapping[str, str]):
    """Texts by name.

    Args:
        held: those in memory.
        read: what returns a text that is not.
    """

    def __init__(self, held: Mapping[str, str], read: Mapping[str, Callable[[], str]]) -> None:
        self._held, self._read = held, read

    def __getitem__(self, name: str) -> str:
        """Return a text."""
        return self._held[name] if name in self._held else self._read[name]()

    def __iter__(self) -> Iterator[str]:
        """Return the names."""
        return iter({**self._read, **self._held})

    def __len__(self) -> int:
        """Return how many there are."""
        return len({*self._held, *self._read})
