"""Side columns: labels, groups, matches and splits by name, and as integer codes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pmrl_cli.data.dataset import Dataset
from pmrl_cli.errors import UsageError

__all__ = ["GROUP", "codes_of", "column_of", "group_column", "label_column", "places_among"]

GROUP, LABEL = "group", "label"
"""Side columns of these names are those of groups and of labels, unless others are named."""


def column_of(dataset: Dataset, name: str) -> pa.Array:
    """Return a side column.

    Raises: UsageError if there is none of that name, naming those there are.
    """
    if name not in dataset.columns:
        raise UsageError(
            what="no such side column",
            found=repr(name),
            expected=f"one of {', '.join(sorted(dataset.columns))}" if dataset.columns else "a file of side columns",
            next_step="Name the file with --labels and one of its columns.",
        )
    return dataset.columns[name]


def codes_of(dataset: Dataset, name: str) -> npt.NDArray[np.int64]:
    """Return (n,) int64 from 0 on, equal for equal values of a side column; -1 for a null.

    Raises: UsageError if there is no such column.
    """
    encoded = column_of(dataset, name).dictionary_encode()
    codes: npt.NDArray[np.int64] = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return codes


def places_among(dataset: Dataset, name: str, ids: pa.LargeStringArray) -> npt.NDArray[np.int64]:
    """Return (n,) the place of each value of a side column, as text, among unique ids; -1 where it is none of them.

    Raises: UsageError if there is no such column.
    """
    column = column_of(dataset, name)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    found = pc.index_in(column.cast(pa.large_string()), ids).fill_null(-1)
    places: npt.NDArray[np.int64] = found.to_numpy(zero_copy_only=False).astype(np.int64)
    return places


def group_column(dataset: Dataset, asked: str | None) -> str | None:
    """Return the side column of groups: the one asked for, else ``group`` where there is one, else None."""
    return asked or (GROUP if GROUP in dataset.columns else None)


def label_column(dataset: Dataset, asked: str | None) -> str | None:
    """Return the side column of labels: the one asked for, else ``label`` where there is one, else None."""
    return asked or (LABEL if LABEL in dataset.columns else None)
