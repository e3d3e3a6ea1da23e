"""Arrays that bring their ids: data frames of pandas, AnnData and MuData, brought into one order by id.

None of these libraries is imported: what looks like one of their objects is taken for one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pmrl_cli.data.join import join_ids, rows_of
from pmrl_cli.errors import DataError, Place, UsageError

__all__ = ["in_modalities", "in_one_order", "numbers_frame", "to_frame"]

Arrays = dict[str, object]
Columns = dict[str, Sequence[object]]


def in_modalities(features: Any) -> Any:  # noqa: ANN401 - anything a caller may pass
    """Return what holds the modalities side by side as a dict; anything else as it is.

    Args:
        features: a frame of two levels of columns (modality, column), or a structured array with a field of (d_m,)
            numbers for each modality: both can be indexed by instance.
    """
    columns: Any = getattr(features, "columns", None)
    if getattr(columns, "nlevels", 1) == 2:
        return {str(name): features[name] for name in dict.fromkeys(columns.get_level_values(0))}
    if isinstance(features, np.ndarray) and features.dtype.names is not None:
        return {name: np.ascontiguousarray(features[name]) for name in features.dtype.names}
    return features


def to_frame(arrays: Mapping[str, npt.NDArray[Any]], ids: Sequence[str]) -> Any:  # noqa: ANN401 - of pandas
    """Return arrays as one frame of two levels of columns, by id.

    Raises: UsageError without pandas.
    """
    pandas = _pandas()
    index = pandas.Index(ids, name="id")
    return pandas.concat({name: pandas.DataFrame(array, index=index) for name, array in arrays.items()}, axis=1)


def numbers_frame(result: Mapping[str, Any]) -> Any:  # noqa: ANN401 - of pandas
    """Return every statistic of a result, a dict with a ``value``, as one row of a frame.

    Args:
        result: JSON values.

    Returns: by dotted path, the columns value, chance, low and high (the 95 % interval); NaN where there is none.

    Raises: UsageError without pandas.
    """

    def rows(node: object, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        if isinstance(node, Mapping):
            if "value" in node and "ci" in node:
                yield path, node
                return
            for key, child in node.items():
                yield from rows(child, f"{path}.{key}" if path else str(key))

    found = dict(rows(result, ""))
    values = [(one["value"], one["chance"], *(one["ci"] or (None, None))) for one in found.values()]
    index = _pandas().Index(list(found), name="number")
    return _pandas().DataFrame(values, index=index, columns=["value", "chance", "low", "high"], dtype=float)


def _pandas() -> Any:  # noqa: ANN401 - the module
    try:
        return import_module("pandas")
    except ImportError:
        raise UsageError(
            what="the package pandas is not installed",
            found="no module 'pandas'",
            expected="it, for frames",
            next_step="Type: pip install pandas",
        ) from None


def in_one_order(
    features: object, ids: Sequence[object] | None, columns: Mapping[str, Sequence[object]] | None
) -> tuple[Arrays, Sequence[object] | None, Columns]:
    """Return arrays whose row i is instance i, with the ids that they brought.

    An index of a frame that is no range, and the names of observations, are ids: rows are joined by them, whatever
    their order, and an instance without a modality has a row of NaN there. With two modalities or more an instance
    needs two of them.

    Args:
        features: a mapping from modality to array, frame or AnnData; or a MuData.
        ids: those of plain arrays.
        columns: side columns, in the order of the rows, or with an index of their own.

    Raises: DataError for anything else, for ids given twice, or if only some bring ids.
    """
    mods = getattr(features, "mod", features)
    if not isinstance(mods, Mapping) or not all(isinstance(name, str) for name in mods):
        raise DataError(
            what="features cannot be read",
            found=f"a {type(features).__name__}"
            + (" with keys other than text" if isinstance(mods, Mapping) else ""),
            expected="a dict from modality to array, data frame or AnnData, a MuData, or a data set",
            next_step="Pass for example {'image': X, 'text': Y}, or what pmrl_cli.read_dataset returns.",
        )
    parts = {name: _parted(name, value) for name, value in mods.items()}
    own = {name: index for name, (_, index) in parts.items() if index is not None}
    arrays: Arrays = {name: array for name, (array, _) in parts.items()}
    side = dict(columns or {})
    if not own:
        return arrays, ids, {name: _values(values) for name, values in side.items()}
    if ids is not None:
        raise _misuse("ids are given twice", "an index, and ids", "one of them", "Leave ids out, or pass arrays.")
    if len(own) < len(parts):
        without = ", ".join(sorted(set(parts) - set(own)))
        raise _misuse(
            "some modalities have ids and some have none",
            f"no index of {without}",
            "ids in all or in none",
            "Give each a frame with its ids as index, or pass arrays in one order and ids.",
        )
    return _joined({name: np.asarray(array) for name, array in arrays.items()}, own, side)


def _misuse(what: str, found: str, expected: str, next_step: str) -> DataError:
    return DataError(what, found=found, expected=expected, next_step=next_step)


def _parted(name: str, value: object) -> tuple[object, pa.LargeStringArray | None]:
    """Return the array of a modality, and the ids it brings."""
    if hasattr(value, "obs_names") and hasattr(value, "obsm"):
        return _embedding(name, value), _texts(name, value.obs_names)
    index: Any = getattr(value, "index", None)
    if index is None or callable(index):  # a list has a method of that name
        return value, None
    array = np.asarray(value)
    if array.dtype == object and array.ndim == 1 and len(array):  # a column of vectors
        array = np.stack([np.asarray(one) for one in array])
    return array, None if type(index).__name__ == "RangeIndex" else _texts(name, index)


def _texts(name: str, index: Any) -> pa.LargeStringArray:  # noqa: ANN401 - an index of any library
    texts = pa.array([str(one) for one in index], pa.large_string())
    if len(texts.unique()) < len(texts):
        seen: set[str] = set()
        twice = next(one for one in texts.to_pylist() if one in seen or seen.add(one))  # type: ignore[func-returns-value]
        raise DataError(
            what="duplicate id",
            at=Place(name, instance_id=twice),
            found="the index holds it twice",
            expected="each id once per modality",
            next_step="Remove the repeats, or reset the index and pass ids.",
        )
    return texts


def _embedding(name: str, value: Any) -> npt.NDArray[Any]:  # noqa: ANN401 - AnnData is not imported
    """Return X_pca of an AnnData, or the one embedding it has, or else a dense X."""
    found = {key: np.asarray(value.obsm[key]) for key in value.obsm if "umap" not in key and "tsne" not in key}
    if "X_pca" in found:
        return found["X_pca"]
    if len(found) == 1:
        return next(iter(found.values()))
    if found or hasattr(value.X, "tocsr") or value.X is None:
        raise DataError(
            what="several arrays could be the features" if found else "sparse features",
            at=Place(name),
            found=", ".join(found) or "a sparse X and no embedding",
            expected="obsm['X_pca'], one array in obsm, or a dense X",
            next_step="Pass the array and its ids, as in pandas.DataFrame(a.obsm[...], index=a.obs_names).",
        )
    return np.asarray(value.X)


def _joined(
    arrays: Mapping[str, npt.NDArray[Any]],
    own: Mapping[str, pa.LargeStringArray],
    side: Mapping[str, Sequence[object]],
) -> tuple[Arrays, Sequence[object], Columns]:
    names = sorted(own, key=str.encode)
    joined = join_ids([own[name] for name in names], "outer", min(2, len(names)))
    if not len(joined.ids):
        found = "; ".join(f"{name} ({', '.join(map(repr, own[name][:3].to_pylist()))})" for name in names)
        raise _misuse(
            "no instance in common", found, "ids that the modalities share", "Write ids alike in all frames."
        )
    together: Arrays = {}
    for name in names:
        rows = rows_of(own[name], joined.ids)
        array = arrays[name]
        kind = array.dtype if array.dtype.kind == "f" else np.dtype(np.float32)
        whole = np.full((len(rows), *array.shape[1:]), np.nan, dtype=kind)
        whole[rows >= 0] = array[rows[rows >= 0]]
        together[name] = whole
    columns: Columns = {}
    for key, values in side.items():
        index: Any = getattr(values, "index", None)
        if index is None or callable(index):
            same = all(one.equals(own[names[0]]) for one in own.values())
            if not same:
                raise _misuse(
                    f"column {key!r} has no ids",
                    "values without an index",
                    "an index, for the modalities differ in order",
                    "Pass a Series whose index holds the ids.",
                )
            columns[key] = values
        else:
            at = rows_of(_texts(key, index), joined.ids)
            listed = list(values)
            columns[key] = [listed[row] if row >= 0 else None for row in at]
    return together, joined.ids.to_pylist(), columns


def _values(values: Sequence[object]) -> Sequence[object]:
    return list(values) if hasattr(values, "index") and not callable(values.index) else values
