"""Side columns (labels, groups) as integer codes."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from pmrl_cli.data.dataset import Dataset
from pmrl_cli.errors import UsageError

__all__ = ["codes_of"]


def codes_of(dataset: Dataset, column: str, *, missing: Literal["apart", "none"]) -> npt.NDArray[np.int64]:
    """Return a side column as codes: equal values, equal codes, in order of first appearance.

    Args:
        dataset: its ``columns`` are looked in.
        column: name of the column.
        missing: what a null is: ``apart`` a value of its own per instance, ``none`` the code -1.

    Returns: (n,) int64.
    Raises: UsageError if there is no such column.
    """
    if column not in dataset.columns:
        what = "no such side column"
        raise UsageError(
            what,
            found=repr(column),
            expected=f"one of {', '.join(sorted(dataset.columns))}" if dataset.columns else "a file of side columns",
            next_step="Name the file with --labels and one of its columns.",
        )
    encoded = dataset.columns[column].dictionary_encode()
    codes: npt.NDArray[np.int64] = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    if missing == "apart":
        empty = np.flatnonzero(codes < 0)
        codes[empty] = len(encoded.dictionary) + np.arange(len(empty))
    return codes
