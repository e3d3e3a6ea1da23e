"""The processes that share a batch, as an objective sees them."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

__all__ = ["ALONE", "Peers"]


class Peers(Protocol):
    """The processes that share a batch; each holds some of its instances."""

    size: int
    start: int
    """Where the instances of this process begin among those of all."""

    def gather(self, rows: Tensor, *, each: int | None = None) -> Tensor:
        """Return the rows of all processes, one process after the other.

        Differentiable: what flows back to the rows of a process is the sum over all processes.

        Args:
            rows: (b, ...), one for each instance of this process, or (each, ...).
            each: rows of every process, where they are not its instances.
        """
        ...

    def own(self, rows: Tensor) -> Tensor:
        """Return the rows of this process's instances, of rows for all instances."""
        ...


class _Alone:
    """One process with the whole batch."""

    size, start = 1, 0

    def gather(self, rows: Tensor, *, each: int | None = None) -> Tensor:
        return rows

    def own(self, rows: Tensor) -> Tensor:
        return rows


ALONE: Peers = _Alone()
