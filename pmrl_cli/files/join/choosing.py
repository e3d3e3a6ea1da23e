"""Which arrays of a file are features, and which column holds their ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pmrl_cli.errors import DataError, Place, printable
from pmrl_cli.files.formats.contents import FLOATS, Column, Contents, Vectors
from pmrl_cli.files.join.naming import FEATURE_NAMES, ID_NAMES, base_name, never_features

__all__ = ["Choice", "choose_ids", "choose_vectors", "id_columns", "is_side_table", "refuse_per_sample"]

PER_SAMPLE = 12
"""More arrays of equal width and unequal length than this are samples, not modalities."""


@dataclass(frozen=True)
class Choice:
    """Arrays taken from a file, and the sentence that says so where it was a choice."""

    vectors: tuple[Vectors, ...]
    note: str | None = None


def choose_vectors(contents: Contents, wanted: str | None, *, flagged: bool, alone: bool) -> Choice:
    """Return the arrays of a file that are features.

    Args:
        contents: what the file holds.
        wanted: dataset or column the user named, None to go by the names.
        flagged: ``wanted`` came from ``--feature-column``, which a file with one nameless array may ignore.
        alone: no other file gives features, so several arrays can be the modalities.

    Raises: DataError if the array named is not there, if there is none, if it holds integers, or if there are
        several and the names do not decide.
    """
    if wanted is not None and not (flagged and all(vectors.name is None for vectors in contents.vectors)):
        found = [v for v in contents.vectors if v.name is not None and wanted in (v.name, base_name(v.name))]
        if len(found) != 1:
            raise _candidates(contents, "no such array" if not found else "ambiguous array", list(contents.vectors))
        return Choice((_usable(contents, found[0]),))
    usable = [vectors for vectors in contents.vectors if vectors.name is None or not never_features(vectors.name)]
    floats = [vectors for vectors in usable if vectors.dtype in FLOATS]
    if len(floats) == 1:
        return Choice((_usable(contents, floats[0]),))
    if not floats:
        if usable:
            _usable(contents, usable[0])
        raise _nothing(contents)
    listed = [vectors for vectors in floats if base_name(vectors.name or "") in FEATURE_NAMES]
    if len(listed) == 1:
        others = ", ".join(vectors.name or "" for vectors in floats if vectors is not listed[0])
        return Choice((_usable(contents, listed[0]),), printable(f"took {listed[0].name} by its name, not {others}."))
    # /image/features and /text/features, or image_embedding and text_embedding: one modality each
    if alone and len({base_name(vectors.name or "") for vectors in listed}) <= 1:
        return Choice(tuple(listed or floats))
    raise _candidates(contents, "several arrays could be the features", floats)


def _usable(contents: Contents, vectors: Vectors) -> Vectors:
    if not vectors.rows:
        raise DataError(
            what="no rows",
            at=Place(contents.file, vectors.name),
            found="0 rows",
            expected="at least one instance",
            next_step="Write the features again, or leave the file out.",
        )
    if vectors.dtype not in FLOATS:
        raise DataError(
            what="integer features",
            at=Place(contents.file, vectors.name),
            found=vectors.dtype,
            expected=f"one of {', '.join(FLOATS)}",
            next_step="Convert the array to float32 if its numbers are measurements.",
        )
    return vectors


def _nothing(contents: Contents) -> DataError:
    seen = [
        *contents.others,
        *(str(v) for v in contents.vectors),
        *(f"{c.name} ({c.rows})" for c in contents.columns),
    ]
    return DataError(
        what="no features",
        at=Place(contents.file),
        found=", ".join(seen[:6]) + (", …" if len(seen) > 6 else "") if seen else "nothing",
        expected="a 2-D float array, one row per instance",
        next_step="Name one with path:/dataset or path#column, or give the file with --labels if it is a side table.",
    )


def _candidates(contents: Contents, what: str, candidates: Sequence[Vectors]) -> DataError:
    shown = ", ".join(str(vectors) for vectors in candidates[:8]) + (", …" if len(candidates) > 8 else "")
    name = candidates[0].name if candidates else None
    hint = ""
    if name is not None:
        hint = f" Type {contents.file}{':' if name.startswith('/') else '#'}{name}, or --feature-column {name}."
    return DataError(
        what=what,
        at=Place(contents.file),
        found=shown or "no 2-D array",
        expected="one array of features",
        next_step=f"Say which one.{hint}",
    )


def is_side_table(contents: Contents, id_column: Sequence[str]) -> bool:
    """Return whether a file holds ids and scalar columns and nothing that is, or was meant as, vectors."""
    usable = [vectors for vectors in contents.vectors if vectors.name is None or not never_features(vectors.name)]
    meant = [column for column in contents.columns if base_name(column.name) in FEATURE_NAMES]
    return not (usable or meant or contents.others) and bool(id_columns(contents, None, id_column))


def _matches(column: Column, name: str) -> bool:
    return name in (column.name, base_name(column.name))


def _nearness(column: Column, vectors: Vectors | None) -> int:
    """Return how close an id column stands: in the array's own group first, then in groups around it."""
    if vectors is None or vectors.name is None or "/" not in vectors.name:
        return 0
    group = column.name.rsplit("/", 1)[0]
    inside = (vectors.name.rsplit("/", 1)[0] + "/").startswith(group + "/")
    return -len(group) if inside else 1


def id_columns(contents: Contents, vectors: Vectors | None, id_column: Sequence[str]) -> dict[str, Column]:
    """Return the columns that can name the rows of an array, by the name on the list (or the one given).

    Args:
        contents: the file.
        vectors: the array; None for a side table, where any length will do.
        id_column: the names given with ``--id-column``, none to go by the usual ones.
    """
    found: dict[str, Column] = {}
    for name in id_column or ID_NAMES:
        fitting = [
            column
            for column in contents.columns
            if column.nameable and _matches(column, name) and (vectors is None or column.rows == vectors.rows)
        ]
        fitting.sort(key=lambda column: _nearness(column, vectors))
        # outside the array's own groups a name must be the only one of its kind
        if fitting and (len(fitting) == 1 or _nearness(fitting[0], vectors) < 1):
            found[name] = fitting[0]
    return found


def choose_ids(arrays: Sequence[tuple[Contents, Vectors]], id_column: Sequence[str]) -> list[Column | None]:
    """Return the id column of each array: of one name for all where there is one, else each file's first.

    Raises: DataError if the column given is missing, or the only ids of a file are not one per row.
    """
    options = [id_columns(contents, vectors, id_column) for contents, vectors in arrays]
    shared = next((name for name in id_column or ID_NAMES if all(name in found for found in options if found)), None)
    chosen: list[Column | None] = []
    for (contents, vectors), found in zip(arrays, options, strict=True):
        if not found:
            _refuse_misfit(contents, vectors, id_column)
        chosen.append(found[shared] if shared in found else next(iter(found.values()), None))
    return chosen


def _refuse_misfit(contents: Contents, vectors: Vectors, id_column: Sequence[str]) -> None:
    names = id_column or ID_NAMES
    named = [column for column in contents.columns if any(_matches(column, name) for name in names)]
    typed = [column for column in named if column.nameable]
    if typed:
        raise DataError(
            what="ids and rows differ in number",
            at=Place(contents.file, typed[0].name),
            found=f"{typed[0].rows} ids",
            expected=f"{vectors.rows} as in {vectors.name or 'the array'}",
            next_step="Write one id per row, or choose another column with --id-column.",
        )
    if named or id_column:
        columns = ", ".join(column.name for column in contents.columns[:8]) or "no column"
        raise DataError(
            what="no ids",
            at=Place(contents.file, named[0].name if named else None),
            found="neither text nor integers" if named else columns,
            expected=f"a column {' or '.join(map(repr, id_column))} of ids" if id_column else "text or integers",
            next_step="Choose a column with --id-column.",
        )


def refuse_per_sample(contents: Contents, vectors: Sequence[Vectors], id_column: Sequence[str]) -> None:
    """Refuse a file that is one sample (coordinates beside features) or holds one group per sample.

    Raises: DataError.
    """
    rows = {v.rows for v in vectors}
    grouped = len(vectors) > PER_SAMPLE and len({v.dim for v in vectors}) == 1 and len(rows) > 1
    names = [*(v.name or "" for v in contents.vectors), *(c.name for c in contents.columns), *contents.others]
    beside = any(base_name(name.split(" ")[0]).lower() in ("coords", "coordinates") for name in names)
    if grouped:
        raise per_sample_error(contents.file, f"{len(vectors)} arrays of {vectors[0].dim} columns and unequal rows")
    if beside and not any(id_columns(contents, v, id_column) for v in vectors):
        raise per_sample_error(contents.file, "coordinates beside features without ids")


def per_sample_error(file: str, found: str) -> DataError:
    """Return the refusal of a layout with one file or group per sample."""
    return DataError(
        what="one file or group per sample",
        at=Place(file),
        found=found,
        expected="one row per instance",
        next_step="Pool each sample to one vector in a single file with ids, or name a modality with name=path.",
    )
