"""What residual adapters were trained on, as second moments: all that a later fit needs to leave it as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

__all__ = ["PARTS", "Seen"]

PARTS = ("inputs", "hidden", "outputs")


@dataclass(frozen=True)
class Seen:
    """Means, over the instances that have modality m, of products of the inputs of its adapter; one of each per m.

    Args:
        inputs: (p_m, p_m) of its components.
        hidden: (w, w) of what enters the last layer of its residual network; (0, 0) without one.
        outputs: (d, d) of its unit vectors.
        together: (K, K) how many instances have both of two modalities; on the diagonal one.
    """

    inputs: tuple[Tensor, ...]
    hidden: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    together: Tensor

    def partners(self, m: int) -> Tensor:
        """Return (d, d), the sum of the moments of outputs of m and of all that were trained with it."""
        total = torch.zeros_like(self.outputs[m])
        for n, of_partner in enumerate(self.outputs):
            if self.together[m, n] > 0:
                total = total + of_partner
        return total

    def arranged(self, places: Sequence[int | None], widths: Sequence[int]) -> Seen:
        """Return what was seen of other modalities, in another order: where there are new components, none of them.

        Args:
            places: per modality its place here, None for one not seen.
            widths: per modality p_m, the old components first.
        """
        hidden, dim = len(self.hidden[0]), len(self.outputs[0])

        def of(parts: Sequence[Tensor], place: int | None, size: int) -> Tensor:
            return torch.zeros(size, size) if place is None else parts[place]

        def widened(place: int | None, width: int) -> Tensor:
            found = torch.zeros(width, width)
            if place is not None:
                old = len(self.inputs[place])
                found[:old, :old] = self.inputs[place]
            return found

        known = [m for m, place in enumerate(places) if place is not None]
        together = torch.zeros(len(places), len(places), dtype=self.together.dtype)
        at = torch.tensor([place for place in places if place is not None], dtype=torch.int64)
        rows = torch.tensor(known, dtype=torch.int64)
        together[rows[:, None], rows] = self.together[at[:, None], at]
        return Seen(
            tuple(widened(place, width) for place, width in zip(places, widths, strict=True)),
            tuple(of(self.hidden, place, hidden) for place in places),
            tuple(of(self.outputs, place, dim) for place in places),
            together,
        )

    def plus(self, other: Seen) -> Seen:
        """Return what was seen here and there, each instance counted once."""

        def mean(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> tuple[Tensor, ...]:
            found = []
            for m, (a, b) in enumerate(zip(ours, theirs, strict=True)):
                counts = self.together[m, m], other.together[m, m]
                found.append((a * counts[0] + b * counts[1]) / (counts[0] + counts[1]).clamp_min(1))
            return tuple(found)

        return Seen(
            mean(self.inputs, other.inputs),
            mean(self.hidden, other.hidden),
            mean(self.outputs, other.outputs),
            self.together + other.together,
        )

    def tensors(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Return it as it is stored: the lower triangles of the moments by ``NAME.seen.PART``, and the counts."""
        stored = {"seen.together": self.together}
        for part in PARTS:
            for name, moment in zip(names, getattr(self, part), strict=True):
                stored[f"{name}.seen.{part}"] = moment[tuple(torch.tril_indices(*moment.shape))].clone()
        return stored

    @classmethod
    def from_tensors(cls, names: Sequence[str], tensors: Mapping[str, Tensor]) -> Self:
        """Return what ``tensors`` stored.

        Raises: KeyError or RuntimeError if they are not that.
        """

        def square(lower: Tensor) -> Tensor:
            size = int(((8 * len(lower) + 1) ** 0.5 - 1) / 2)
            moment = lower.new_zeros(size, size)
            moment[tuple(torch.tril_indices(size, size))] = lower
            return moment + moment.tril(-1).mT

        parts = {part: tuple(square(tensors[f"{name}.seen.{part}"]) for name in names) for part in PARTS}
        return cls(**parts, together=tensors["seen.together"])
