"""The checks every id and every row of features passes, whether it came from a file or from Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pmrl_cli.data.dataset import FloatArray
from pmrl_cli.errors import DataError, Place

__all__ = [
    "MAX_ID_BYTES",
    "SHOWN",
    "BadRows",
    "check_unique",
    "row_faults",
    "text_ids",
]

SHOWN = 5
"""Offenders that an error lists by place; the rest are counted."""

MAX_ID_BYTES = 1024
"""Longer than any key or path; a text beyond it is a document in the wrong column."""

NO_ID_HINT = "Fix the ids, or choose another column with --id-column."


def row_faults(block: FloatArray) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Find the rows of a block that are missing or bad.

    A row is missing if every value is NaN; it is bad if it holds some NaN or Inf, or is a zero vector (which has
    no direction and cannot be brought to unit length).

    Args:
        block: (B, d) float32.

    Returns: (B,) bool missing, (B,) bool bad.
    """
    missing = np.zeros(len(block), dtype=np.bool_)
    bad = np.zeros(len(block), dtype=np.bool_)
    # One pass over the data finds clean rows by their sum of squares; rows where it overflows or underflows are
    # suspects, which are checked exactly.
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        squares = np.einsum("ij,ij->i", block, block)
    clean = (squares > 0) & (squares < np.inf)
    if not clean.all():
        suspects = np.flatnonzero(~clean)
        rows = np.where(np.isnan(block[suspects]), np.float32(np.nan), block[suspects])  # no signalling NaN
        missing[suspects] = np.isnan(rows).all(axis=1)
        bad[suspects] = ~np.isnan(rows).all(axis=1) & (~np.isfinite(rows).all(axis=1) | ~rows.any(axis=1))
    return missing, bad


class BadRows:
    """Bad rows seen so far: the first five with what is wrong, and how many in all."""

    def __init__(self) -> None:
        self.places: list[Place] = []
        self.found: list[tuple[str, str, str]] = []
        self.total = 0

    def add(self, place: Place, row: FloatArray) -> None:
        """Record one bad row.

        Args:
            place: where it stands.
            row: (d,) float32, its values.
        """
        self.total += 1
        if len(self.places) < SHOWN:
            self.places.append(place)
            self.found.append(_describe(row))

    def error(self, *, next_step: str) -> DataError:
        """Return the error that names them (at least one must have been added)."""
        what, found, expected = self.found[0]
        return DataError(
            what,
            at=self.places[0],
            others=self.places[1:],
            total=self.total,
            found=found,
            expected=expected,
            next_step=next_step,
        )


def _describe(row: FloatArray) -> tuple[str, str, str]:
    parts = [
        f"{name} in {count} of {len(row)} columns"
        for name, count in (("NaN", int(np.isnan(row).sum())), ("Inf", int(np.isinf(row).sum())))
        if count
    ]
    if parts:
        return "non-finite value", " and ".join(parts), "finite float32"
    return "zero vector", f"0 in all {len(row)} columns", "a vector with a direction"


def _id_error(
    rows: npt.NDArray[np.int64],
    file: str,
    dataset: str | None,
    *,
    what: str,
    found: str,
    shown: Callable[[int], str | None] = lambda row: None,
) -> DataError:
    places = [Place(file, dataset, int(row), shown(int(row))) for row in rows[:SHOWN]]
    return DataError(
        what,
        at=places[0],
        others=places[1:],
        total=len(rows),
        found=found,
        expected="one text or integer id per row",
        next_step=NO_ID_HINT,
    )


def text_ids(values: pa.Array, *, file: str, dataset: str | None = None) -> pa.LargeStringArray:
    """Return ids as text: bytes decoded as UTF-8, integers as decimal text, nothing folded or trimmed.

    Args:
        values: (n,) Arrow array of strings, binary or integers.
        file: named in errors, as is ``dataset``.
        dataset: HDF5 dataset or column of the ids.

    Raises: DataError for another type, nulls, empty ids, ids beyond ``MAX_ID_BYTES`` or bytes that are not UTF-8.
    """
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    kind = values.type
    textual = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)
    if not (textual or binary or pa.types.is_integer(kind)):
        raise DataError(
            what="ids are of a type that cannot name instances",
            at=Place(file, dataset),
            found=str(kind),
            expected="text or integers",
            next_step=NO_ID_HINT,
        )
    if values.null_count:
        rows = np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))
        raise _id_error(rows, file, dataset, what="missing id", found="null")
    if textual or binary:
        # What a file calls text need not be: only the way back from bytes looks at each.
        values = (values.cast(pa.large_string()) if textual else values).cast(pa.large_binary())
    try:
        ids = values.cast(pa.large_string())
    except pa.ArrowInvalid:
        rows = np.array([i for i, value in enumerate(values.to_pylist()) if not _is_utf8(value)], dtype=np.int64)
        found = repr(values[int(rows[0])].as_py()[:40])
        raise _id_error(
            rows,
            file,
            dataset,
            what="id is not UTF-8 text",
            found=found,
            shown=lambda row: values[row].as_py().decode(errors="replace"),
        ) from None
    lengths = pc.binary_length(ids).to_numpy(zero_copy_only=False)
    if len(empty := np.flatnonzero(lengths == 0)):
        raise _id_error(empty, file, dataset, what="empty id", found="''")
    if len(long := np.flatnonzero(lengths > MAX_ID_BYTES)):
        found = f"{lengths[long[0]]} bytes where {MAX_ID_BYTES} are the most"
        raise _id_error(long, file, dataset, what="id too long", found=found, shown=lambda row: str(ids[row].as_py()))
    return ids


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def check_unique(
    ids: pa.LargeStringArray,
    places: Sequence[tuple[str, str | None, int]],
    next_step: str = "Remove the repeats, or choose another column with --id-column.",
) -> None:
    """Refuse ids that name two rows.

    Args:
        ids: (n,) Arrow large_string.
        places: file, dataset and row count of each shard that ``ids`` concatenates.
        next_step: what to do about them.

    Raises: DataError naming both rows of the first duplicate, four more, and the count.
    """
    if pc.count_distinct(ids).as_py() == len(ids):
        return
    first_row = pc.index_in(ids, value_set=ids).to_numpy(zero_copy_only=False)
    repeats = np.flatnonzero(first_row != np.arange(len(ids)))
    bounds = np.cumsum([0, *(rows for _, _, rows in places)])

    def place(row: int) -> Place:
        shard = int(np.searchsorted(bounds, row, side="right")) - 1
        file, dataset, _ = places[shard]
        return Place(file, dataset, row - int(bounds[shard]), ids[row].as_py())

    raise DataError(
        what="duplicate id",
        at=place(int(repeats[0])),
        others=[place(int(row)) for row in repeats[1:SHOWN]],
        total=len(repeats),
        found=f"the id of {place(int(first_row[repeats[0]]))} again",
        expected="each id once per modality",
        next_step=next_step,
    )
