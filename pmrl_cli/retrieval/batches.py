"""Instances as unit vectors of one shared space: what ranking and diagnosis work on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pmrl_cli.data.dataset import Dataset, Rows
from pmrl_cli.errors import DataError

__all__ = ["Batch", "check_one_space", "check_pairs", "read_batch", "scope_of"]


@dataclass(frozen=True)
class Batch:
    """Some instances of a data set.

    Args:
        rows: (B,) int64, ascending: which instances.
        embeddings: (B, K, d) float32, unit length where present, zero elsewhere.
        present: (B, K) bool.
    """

    rows: npt.NDArray[np.int64]
    embeddings: Tensor
    present: Tensor

    def split(self, size: int) -> Iterator[Batch]:
        """Yield the batch in pieces of at most ``size`` instances."""
        for start in range(0, len(self.rows), size):
            piece = slice(start, start + size)
            yield Batch(self.rows[piece], self.embeddings[piece], self.present[piece])


_SQUARES_KEPT = 1e-15
"""Between this length and its inverse no square of float32 overflows, nor loses more than its rounding."""


def read_batch(dataset: Dataset, rows: Rows) -> Batch:
    """Read instances and bring every present vector to unit length (absent ones to zero).

    Args:
        dataset: modalities of one dim.
        rows: ascending row numbers, or a slice with both ends.
    """
    present = np.ascontiguousarray(dataset.present[rows])
    stacked = torch.from_numpy(np.stack([features.read(rows) for features in dataset.modalities], axis=1))
    lengths = stacked.norm(dim=-1, keepdim=True)
    squares_lost = ~((lengths > _SQUARES_KEPT) & (lengths < 1 / _SQUARES_KEPT))
    if bool(squares_lost.any()):  # the squares of such values overflow or vanish, the values do not
        largest = stacked.abs().amax(dim=-1, keepdim=True)
        stacked = torch.where(squares_lost & (largest > 0), stacked.double() / largest, stacked.double()).float()
        lengths = stacked.norm(dim=-1, keepdim=True)
    # A vector of length zero has no direction: it stays zero and its cosine with anything is 0.
    stacked /= lengths.masked_fill_(lengths == 0, 1)
    mask = torch.from_numpy(present)
    stacked.masked_fill_(~mask[..., None], 0)
    numbers = np.arange(rows.start, rows.stop, dtype=np.int64) if isinstance(rows, slice) else rows
    return Batch(numbers, stacked, mask)


def check_pairs(dataset: Dataset) -> None:
    """Refuse what has nothing to be aligned.

    Raises: DataError unless there are two modalities or more and an instance that has two.
    """
    if len(dataset.names) < 2:
        raise DataError(
            what="too few modalities",
            found=", ".join(dataset.names) or "none",
            expected="two or more",
            next_step="Name a file for each modality.",
        )
    if not (dataset.present.sum(1) >= 2).any():
        raise DataError(
            what="no instance in two modalities",
            found=f"none of {len(dataset)} has two modalities",
            expected="at least one",
            next_step="Check with pmrl inspect that the ids of the files agree.",
        )


def check_one_space(dataset: Dataset) -> None:
    """Refuse modalities that do not share a space.

    Raises: DataError unless there are at least two modalities, all of one dim, and at least one instance that has
        two.
    """
    check_pairs(dataset)
    if len(set(dataset.dims)) > 1:
        raise DataError(
            what="modalities are not in one space",
            found=", ".join(f"{f.name} has {f.dim} columns" for f in dataset.modalities),
            expected="equal numbers of columns",
            next_step="Pass --model MODEL, or train one first with pmrl fit.",
        )


def scope_of(dataset: Dataset) -> str:
    """Return a sentence on which instances are evaluated where no model chose some."""
    return f"{'all ' * (len(dataset) > 1)}{len(dataset):,} instance{'s' * (len(dataset) != 1)}, compared as they are"
