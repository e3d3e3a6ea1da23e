"""What passes through training: a batch as an encoder and a term see it, and the processes that share it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from torch import Tensor

__all__ = ["SINGLE", "BatchGroup", "Encoded", "Inputs", "Loss", "whole_batch"]


class Inputs(NamedTuple):
    """One batch of instances.

    Args:
        components: per modality (B, p_m) whitened components of the features; zeros where absent.
        present: (B, K) bool.
        labels: (B,) int64 class of each instance, -1 where unknown; None unless the method needs labels.
        match: (B,) int64; instances of equal number show the same thing and are never each other's negatives. None
            where all differ.
    """

    components: Sequence[Tensor]
    present: Tensor
    labels: Tensor | None = None
    match: Tensor | None = None


class Encoded(NamedTuple):
    """What an encoder makes of a batch.

    Args:
        vectors: (B, K, d) unit length where present, anything finite elsewhere.
        present: (B, K) bool; wider than that of the inputs where an encoder fills in what is missing.
        extra: further outputs by name, (B, K, d') for each modality or (B, d') for each instance. ``fused``, (B, d)
            of unit length, takes the place of the fused vector.
    """

    vectors: Tensor
    present: Tensor
    extra: Mapping[str, Tensor] = MappingProxyType({})


class Loss(NamedTuple):
    """The value of a loss on one batch.

    Args:
        value: scalar to minimise, connected to the graph even when no instance contributes (then zero).
        parts: detached scalars worth watching, by name (``spectrum``, ``instance``, a temperature).
    """

    value: Tensor
    parts: dict[str, Tensor]


class BatchGroup(Protocol):
    """The processes that share a batch; each holds some of its instances."""

    size: int
    start: int
    """Where the instances of this process begin among those of all."""

    def gather(self, rows: Tensor, *, each: int | None = None) -> Tensor:
        """Return the rows of all processes, one process after the other.

        Differentiable: the gradient of the rows of a process is the sum over all processes.

        Args:
            rows: (b, ...), one for each instance of this process, or (each, ...).
            each: rows of every process, where they are not its instances.
        """
        ...

    def local(self, rows: Tensor) -> Tensor:
        """Return the rows of this process's instances, of rows for all instances."""
        ...


class _Single:
    """One process with the whole batch."""

    size, start = 1, 0

    def gather(self, rows: Tensor, *, each: int | None = None) -> Tensor:
        return rows

    def local(self, rows: Tensor) -> Tensor:
        return rows


SINGLE: BatchGroup = _Single()


class _Gathered(Sequence[Tensor]):
    """Tensors that are gathered only when used: most terms never use the components."""

    def __init__(self, local: Sequence[Tensor], group: BatchGroup) -> None:
        self._local, self._group = local, group

    def __len__(self) -> int:
        return len(self._local)

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401 - a number or a slice
        found = self._local[index]
        return self._group.gather(found) if isinstance(found, Tensor) else [self._group.gather(t) for t in found]


def whole_batch(encoded: Encoded, inputs: Inputs, group: BatchGroup) -> tuple[Encoded, Inputs]:
    """Return the batch of all processes, of which each gives its local instances."""
    if group.size == 1:
        return encoded, inputs
    extra = {name: group.gather(output) for name, output in encoded.extra.items()}
    labels, match = (None if numbers is None else group.gather(numbers) for numbers in (inputs.labels, inputs.match))
    return (
        Encoded(group.gather(encoded.vectors), group.gather(encoded.present), extra),
        Inputs(_Gathered(inputs.components, group), group.gather(inputs.present), labels, match),
    )
