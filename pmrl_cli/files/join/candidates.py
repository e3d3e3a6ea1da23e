"""Columns that could be ids but are not named as such: while there are any, rows are not taken for instances."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from pmrl_cli.errors import DataError, Place, PmrlError, printable
from pmrl_cli.files.formats.contents import Column, Contents, Vectors
from pmrl_cli.files.formats.names import never_features

__all__ = ["could_be_ids", "refuse_row_join", "shared_column"]

_DISTINCT = 0.9
"""Share of distinct values from which a column is worth naming, though ids must all be distinct."""

_ID_WORD = re.compile(r"(^|[-_.])(id|ids|key|uid|uuid|code)($|[-_.])|Id$|ID$")

_MOST_COLUMNS = 32
_SHOWN = 6

Shards = tuple[Sequence[Contents], Sequence[Vectors]]


def could_be_ids(contents: Contents, vectors: Vectors) -> list[tuple[Column, pa.Array]]:
    """Return the columns of text or integers with (nearly) as many distinct values as an array has rows."""
    found = []
    for column in [one for one in contents.columns if one.nameable and one.rows == vectors.rows][:_MOST_COLUMNS]:
        try:
            values = _as_text(column.load(text=True))
        except (PmrlError, pa.ArrowException):
            continue
        distinct = pc.count_distinct(values, mode="only_valid").as_py()
        if vectors.rows > 1 and distinct >= _DISTINCT * vectors.rows:
            found.append((column, values))
    return found


def _counts(values: pa.Array) -> bool:
    return bool(pc.all(pc.utf8_is_digit(values)).as_py())


def _as_text(values: pa.Array) -> pa.Array:
    return values.cast(pa.large_string())


def refuse_row_join(modalities: Sequence[Shards]) -> None:
    """Refuse to join by row while a column could be the ids.

    Args:
        modalities: the files and arrays of each.

    Raises: DataError that lists such columns, how many of their values are distinct and shared, and what to type.
    """
    per_modality = _columns_of(modalities)
    if not any(per_modality):
        return
    having = next(at for at, columns in enumerate(per_modality) if columns)
    place = Place(modalities[having][0][0].file)
    numbers = {name for columns in per_modality for name, values in columns.items() if _counts(values)}

    def unlikely(name: str) -> int:
        """Return how little a column that is as good as others looks like ids."""
        return 2 * never_features(name) + (name in numbers and not _ID_WORD.search(name))

    ranked = sorted(_evaluated(per_modality), key=lambda one: (-one[1], -one[2], -one[3], unlikely(one[0]), one[0]))
    shown = "; ".join(
        f"{name}: {share} of {rows} distinct values"
        + (f", {shared} in all modalities" if in_all else "")
        + ("" if in_all else ", not in all files")
        for name, in_all, shared, _, share, rows in ranked[:_SHOWN]
    )
    best = ranked[0]
    option = f"--id-column {best[0]}"
    raise DataError(
        what="no clear ids, and several columns that could be them",
        at=place,
        found=printable(shown),
        expected="one column named as the ids, or none that could be",
        next_step=printable(
            f"Type {option} to join by it, or --by-row if row i of every file is the same instance."
            if best[1] and best[2]
            else f"Type --by-row if row i of every file is the same instance, or name the ids, as in {option}."
        ),
    )


def _columns_of(modalities: Sequence[Shards]) -> list[dict[str, pa.Array]]:
    """Return of each modality the columns that could be ids, over all of its shards, by name."""
    found: list[dict[str, pa.Array]] = []
    for contents, shards in modalities:
        columns: dict[str, list[pa.Array]] = {}
        for one, vectors in zip(contents, shards, strict=True):
            for column, values in could_be_ids(one, vectors):
                columns.setdefault(column.name.lstrip("/"), []).append(values)
        found.append({n: pa.concat_arrays(v) for n, v in columns.items() if len(v) == len(shards)})
    return found


def shared_column(modalities: Sequence[Shards]) -> tuple[str, int] | None:
    """Return the column of distinct values of which all modalities share most, and how many; None without any."""
    evaluated = [one for one in _evaluated(_columns_of(modalities)) if one[1] and one[2] and one[3]]
    best = max(evaluated, key=lambda one: one[2], default=None)
    return None if best is None else (best[0], best[2])


Evaluated = tuple[str, bool, int, bool, int, int]


def _evaluated(per_modality: Sequence[dict[str, pa.Array]]) -> list[Evaluated]:
    """Return of each column: name, in all modalities, values shared by all, unique in all, least distinct, rows."""
    evaluated = []
    for name in dict.fromkeys(name for columns in per_modality for name in columns):
        having = [columns[name] for columns in per_modality if name in columns]
        in_all = len(having) == len(per_modality)
        shared = having[0].unique()
        for values in having[1:]:
            shared = shared.filter(pc.is_in(shared, value_set=values))
        distinct = min(pc.count_distinct(values).as_py() for values in having)
        unique = all(pc.count_distinct(values).as_py() == len(values) for values in having)
        evaluated.append((name, in_all, len(shared) if in_all else 0, unique, distinct, len(having[0])))
    return evaluated
