"""Rows of numbers out of the columns of a table: lists, lists of lists, tensors, numeric columns, text."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Protocol

import numpy as np
import pyarrow as pa

from pmrl_cli.files.formats.contents import Block
from pmrl_cli.files.formats.layout import pooled

__all__ = ["Convert", "Lists", "Nested", "Stacked", "Tensors", "Texts", "numbers", "storage_array"]


class Convert(Protocol):
    """Makes rows of a batch; returns by row what was found instead where rows are of another length."""

    def __call__(self, batch: pa.RecordBatch) -> Block | dict[int, str]:
        """Return the rows of a batch."""
        ...


class Lists:
    """Lists of one length.

    Args:
        dim: that length.
    """

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def __call__(self, batch: pa.RecordBatch) -> Block | dict[int, str]:
        """Return the rows of a batch."""
        return _from_lists(storage_array(batch.column(0)), self.dim)


def _from_lists(values: pa.Array, dim: int) -> Block | dict[int, str]:
    """Return lists as rows; nulls are rows of zeros, marked."""
    null = values.is_null().to_numpy(zero_copy_only=False) if values.null_count else None
    whole = values if null is None else values.drop_null()
    lengths = whole.value_lengths().to_numpy()
    if (lengths != dim).any():
        rows = np.arange(len(values)) if null is None else np.flatnonzero(~null)
        return {int(rows[at]): f"{lengths[at]} values" for at in np.flatnonzero(lengths != dim)}
    flat = whole.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)
    if null is None:
        return flat, None
    block = np.zeros((len(values), dim), dtype=flat.dtype)
    block[~null] = flat
    return block, null


class Nested:
    """Lists of lists: one list a row, or several that are pooled.

    Args:
        dim: length of an inner list.
        pool: as in ``ProbeOptions``.
    """

    def __init__(self, dim: int, pool: str | None) -> None:
        self.dim, self.pool = dim, pool

    def __call__(self, batch: pa.RecordBatch) -> Block | dict[int, str]:
        """Return the rows of a batch."""
        values = storage_array(batch.column(0))
        null = values.is_null().to_numpy(zero_copy_only=False) if values.null_count else None
        whole = values if null is None else values.drop_null()
        counts = whole.value_lengths().to_numpy()
        rows = np.arange(len(values)) if null is None else np.flatnonzero(~null)
        if (counts < 1).any() or ((counts > 1).any() and self.pool is None):
            wrong = np.flatnonzero((counts < 1) | (counts > 1))
            return {int(rows[at]): f"{counts[at]} vectors" for at in wrong}
        inner = _from_lists(whole.flatten(), self.dim)
        if isinstance(inner, dict):
            of = np.repeat(rows, counts)
            return {int(of[at]): was for at, was in inner.items()}
        flat = inner[0]
        if (counts > 1).any():
            starts = np.concatenate([[0], np.cumsum(counts)])
            flat = np.stack([pooled(flat[None, a:b], self.pool or "first")[0] for a, b in pairwise(starts)])
        if null is None:
            return flat, None
        block = np.zeros((len(values), self.dim), dtype=flat.dtype)
        block[~null] = flat
        return block, null


class Tensors:
    """Tensors of a fixed shape.

    Args:
        length: vectors in one tensor, which are pooled if there are several.
        dim: numbers in one vector.
        pool: as in ``ProbeOptions``.
    """

    def __init__(self, length: int, dim: int, pool: str | None) -> None:
        self.length, self.dim, self.pool = length, dim, pool

    def __call__(self, batch: pa.RecordBatch) -> Block | dict[int, str]:
        """Return the rows of a batch."""
        found = _from_lists(storage_array(batch.column(0)), self.length * self.dim)
        if isinstance(found, dict) or self.length == 1:
            return found
        return pooled(found[0].reshape(-1, self.length, self.dim), self.pool or "first"), found[1]


class Stacked:
    """Numeric columns side by side; a row is null where all of them are.

    Args:
        dtype: of the rows.
    """

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype

    def __call__(self, batch: pa.RecordBatch) -> Block:
        """Return the rows of a batch."""
        columns = [batch.column(index) for index in range(batch.num_columns)]
        rows = np.stack([column.to_numpy(zero_copy_only=False) for column in columns], axis=1)
        null = np.all(
            np.stack([column.is_null().to_numpy(zero_copy_only=False) for column in columns], axis=1), axis=1
        )
        return np.ascontiguousarray(rows, dtype=self.dtype), null if null.any() else None


class Texts:
    """Vectors written as text, such as ``[0.1, 0.2]``; an empty text is null.

    Args:
        dim: numbers in one text.
    """

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def __call__(self, batch: pa.RecordBatch) -> Block | dict[int, str]:
        """Return the rows of a batch."""
        texts = batch.column(0).to_pylist()
        block, null, wrong = np.zeros((len(texts), self.dim)), np.zeros(len(texts), dtype=np.bool_), {}
        for row, text in enumerate(texts):
            values = None if text is None else numbers(text)
            if text is None or not text.strip():
                null[row] = True
            elif values is None or len(values) != self.dim:
                wrong[row] = repr(text[:40]) if values is None else f"{len(values)} values"
            else:
                block[row] = values
        return wrong or (block, null if null.any() else None)


def numbers(text: str) -> list[float] | None:
    """Return the numbers of a text, None if a word of it is none."""
    try:
        return [float(word) for word in re.split(r"[\s,;]+", text.strip().strip("[](){}").strip())]
    except ValueError:
        return None


def storage_array(values: pa.Array) -> pa.Array:
    """Return the array an extension type is stored as; any other as it is."""
    return values.storage if isinstance(values, pa.ExtensionArray) else values
