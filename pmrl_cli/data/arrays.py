"""Arrays given in Python, as a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pmrl_cli.data.dataset import Dataset, Features
from pmrl_cli.data.frames import in_one_order
from pmrl_cli.data.validate import SHOWN, BadRows, check_unique, row_faults, text_ids
from pmrl_cli.errors import DataError, Place

__all__ = ["as_array", "dataset_from_arrays", "dataset_without_rows"]

_FEW = 1024  # rows whose numbers are kept as ids


def zero_rows(array: npt.NDArray[np.generic], rows: npt.NDArray[np.bool_]) -> None:
    """Set the rows marked True to zeros in place, as absent rows are stored."""
    if rows.any():
        array[rows] = 0


def dataset_without_rows(features: Mapping[str, object]) -> Dataset | None:
    """Return the data set of arrays that have columns but no rows; None where they are something else."""
    if not features or any(getattr(array, "shape", ())[:1] != (0,) for array in features.values()):
        return None
    modalities = tuple(
        Features(name, np.zeros(getattr(array, "shape"), dtype=np.float32))  # noqa: B009 - of any library
        for name, array in sorted(features.items(), key=lambda item: item[0].encode())
    )
    return Dataset(pa.array([], pa.large_string()), modalities, np.zeros((0, len(modalities)), dtype=np.bool_))


def dataset_from_arrays(
    features: object,
    ids: Sequence[object] | None = None,
    columns: Mapping[str, Sequence[object]] | None = None,
) -> Dataset:
    """Return a data set over arrays in memory, under the same rules as files.

    Args:
        features: a mapping from modality to what ``as_array`` takes, (n, d_m) float16, float32 or float64; a row that
            is all NaN (in Arrow: null) is missing. Arrays of float32 and float16 without missing rows are not copied.
            Data frames with an index that is no range, AnnData and MuData bring their ids and are joined by them.
            A ``Dataset`` is returned as it is.
        ids: (n,) unique texts or integers; without them instances are known by their row number.
        columns: side columns, each (n,).

    Raises: DataError for arrays of another shape or type, unequal rows, bad ids, NaN or Inf inside a row, or a
        zero vector.
    """
    if isinstance(features, Dataset):
        return features
    arrays_given, ids, columns = in_one_order(features, ids, columns)
    if not arrays_given:
        raise DataError(
            what="no modality",
            found="no array",
            expected="at least one array of features",
            next_step="Pass a dict from modality to array.",
        )
    names = sorted(arrays_given, key=str.encode)
    arrays = {name: as_array(name, arrays_given[name]) for name in names}
    rows = {name: _rows_of_array(name, arrays[name]) for name in names}
    if len(set(rows.values())) > 1:
        raise DataError(
            what="modalities differ in rows",
            found=", ".join(f"{name} {count}" for name, count in rows.items()),
            expected="the same instances in every array",
            next_step="Give an instance without a modality a row of NaN there.",
        )
    n = rows[names[0]]
    instance_ids = _python_ids(ids, n)
    present = np.ones((n, len(names)), dtype=np.bool_)
    modalities = []
    for column, name in enumerate(names):
        array = arrays[name]
        stored = array
        if array.dtype == np.float64:
            with np.errstate(over="ignore"):
                stored = array.astype(np.float32)
        missing = _missing_rows(name, stored, instance_ids)
        if missing.any():
            stored = np.array(stored, copy=True)
            zero_rows(stored, missing)
            present[:, column] = ~missing
        modalities.append(Features(name, np.ascontiguousarray(stored)))
    side = {key: pa.array(values) for key, values in (columns or {}).items()}
    for key, values in side.items():
        _check_length(f"column {key!r}", len(values), n)
    return Dataset(instance_ids, tuple(modalities), present, side, named_by_row=ids is None)


def as_array(name: str, values: object) -> npt.NDArray[np.generic]:
    """Return vectors passed in Python as a NumPy array.

    Args:
        name: the modality, named in errors.
        values: anything NumPy takes, a torch tensor (on any device; bfloat16 becomes float32), an Arrow array of
            lists or of 1-D tensors, or a column of objects, each a vector or None; nulls become rows of NaN.

    Raises: DataError for lists that differ in length.
    """
    detach = getattr(values, "detach", None)
    if detach is not None:  # a torch tensor; this package does not import torch
        tensor = detach().cpu()
        values = (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        column = values
    else:
        array = np.asarray(values)
        if array.dtype != object or array.ndim != 1:
            return array
        try:  # a column of pandas, or of a data engine that passes NumPy arrays
            column = pa.array(array)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            return array  # whatever it holds, it is refused by its type
    lists = _lists_in(column)
    return np.asarray(values) if lists is None else _rows_of_lists(name, lists)


def _lists_in(column: pa.Array | pa.ChunkedArray) -> pa.Array | None:
    """Return the lists of floating point that a column holds, None if it holds something else."""
    values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    # Tensors, Arrow's own and those of data engines, are lists inside; a matrix in each row is no vector.
    if isinstance(values, pa.ExtensionArray) and len(getattr(values.type, "shape", ())) == 1:
        values = values.storage
    lists = isinstance(values, (pa.ListArray, pa.LargeListArray, pa.FixedSizeListArray))
    return values if lists and pa.types.is_floating(values.type.value_type) else None


def _rows_of_lists(name: str, values: pa.Array) -> npt.NDArray[np.generic]:
    there = values.is_valid().to_numpy(zero_copy_only=False)
    whole = values.drop_null()
    numbers = whole.flatten().to_numpy(zero_copy_only=False)
    if pa.types.is_fixed_size_list(values.type):
        dim = values.type.list_size
    else:
        lengths = whole.value_lengths().to_numpy()
        dim = int(lengths[0]) if len(lengths) else 0
        if len(other := np.flatnonzero(lengths != dim)):
            rows = np.flatnonzero(there)[other]
            raise DataError(
                what="vectors differ in length",
                at=Place(name, row=int(rows[0])),
                others=[Place(name, row=int(row)) for row in rows[1:SHOWN]],
                total=len(rows),
                found=f"{lengths[other[0]]} values",
                expected=f"{dim} as in the first row",
                next_step="Give vectors of one length, and null where the modality is missing.",
            )
    array = np.full((len(values), dim), np.nan, dtype=numbers.dtype)
    array[there] = numbers.reshape(len(whole), dim)
    return array


def _rows_of_array(name: str, array: npt.NDArray[np.generic]) -> int:
    if array.ndim != 2 or array.dtype not in (np.float16, np.float32, np.float64) or 0 in array.shape:
        raise DataError(
            what="array cannot be features",
            at=Place(name),
            found=f"{array.dtype} of shape {array.shape}",
            expected="float16, float32 or float64 of shape (rows, columns), none of them 0",
            next_step="Convert it first.",
        )
    return len(array)


def _row_numbers(n: int) -> pa.LargeStringArray:
    return pa.array(np.arange(n)).cast(pa.large_string())


_few_row_numbers = lru_cache(maxsize=16)(_row_numbers)
"""A service asks for the same few again and again, and Arrow's arrays do not change."""


def _python_ids(ids: Sequence[object] | None, n: int) -> pa.LargeStringArray:
    if ids is None:
        return _few_row_numbers(n) if n <= _FEW else _row_numbers(n)
    try:
        values = pa.array(ids)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        raise DataError(
            what="ids of mixed type",
            at=Place("ids"),
            found=" and ".join(sorted({type(value).__name__ for value in ids})),
            expected="all text or all integers",
            next_step="Convert them to text.",
        ) from None
    _check_length("ids", len(values), n)
    text = text_ids(values, file="ids")
    check_unique(
        text,
        [("ids", None, n)],
        next_step="Give each instance an id of its own; labels go into columns={'label': labels}.",
    )
    return text


def _check_length(what: str, found: int, expected: int) -> None:
    if found != expected:
        raise DataError(
            what=f"{what} and rows differ in number",
            found=str(found),
            expected=str(expected),
            next_step="Give one per row.",
        )


def _missing_rows(name: str, array: npt.NDArray[np.generic], ids: pa.LargeStringArray) -> npt.NDArray[np.bool_]:
    missing = np.zeros(len(array), dtype=np.bool_)
    bad_rows = BadRows()
    step = max(1, 2**22 // array.shape[1])
    for start in range(0, len(array), step):
        block = array[start : start + step].astype(np.float32, copy=False)
        missing[start : start + step], bad = row_faults(block)
        for row in np.flatnonzero(bad) if bad.any() else ():
            at = start + int(row)
            bad_rows.add(Place(name, row=at, instance_id=ids[at].as_py()), block[row])
    if bad_rows.total:
        raise bad_rows.error(
            next_step="Leave these rows out, or set them wholly to NaN where the modality is missing."
        )
    return missing
