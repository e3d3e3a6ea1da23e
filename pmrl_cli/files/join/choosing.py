"""Which arrays of a file are features, and which column holds their ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pmrl_cli.errors import DataError, Place, PmrlError, PolicyError, printable
from pmrl_cli.files.formats.contents import FLOATS, Column, Contents, Refused, Vectors
from pmrl_cli.files.formats.names import FEATURE_NAMES, ID_NAMES, base_name, never_features

__all__ = [
    "Choice",
    "choose_ids",
    "choose_vectors",
    "has_array",
    "id_columns",
    "is_side_table",
    "per_sample_error",
    "refuse_per_sample",
]


@dataclass(frozen=True)
class Choice:
    """Arrays taken from a file, and a note where it was a choice."""

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
        several and the names do not decide; PolicyError for one that pmrl does not read.
    """
    if wanted is not None and not (flagged and all(vectors.name is None for vectors in contents.vectors)):
        return Choice((_usable(contents, _named(contents, wanted)),))
    usable = [vectors for vectors in contents.vectors if vectors.name is None or not never_features(vectors.name)]
    floats = [vectors for vectors in usable if vectors.dtype in FLOATS]
    known = [vectors for vectors in floats if vectors.modality is not None]
    if known:  # the format says what they are
        return Choice(tuple(_usable(contents, one) for one in known), _left_out(contents, known))
    if len(floats) == 1:
        return Choice((_usable(contents, floats[0]),), _left_out(contents, floats))
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
        return Choice(tuple(listed or floats), _left_out(contents, listed or floats))
    raise _candidates(contents, "several arrays could be the features", floats)


def has_array(contents: Contents, wanted: str) -> bool:
    """Return whether a file has an array of a name, be it one that is not read."""
    unpooled = [phrase.split(" ")[0] for phrase in contents.unpooled]
    names = [*(one.name or "" for one in contents.vectors), *(one.name for one in contents.refused), *unpooled]
    return any({wanted, wanted.lstrip("/")} & {name, name.lstrip("/"), base_name(name)} for name in names)


def _named(contents: Contents, wanted: str) -> Vectors:
    called = {wanted, wanted.lstrip("/")}
    found = [
        v for v in contents.vectors if v.name is not None and called & {v.name, v.name.lstrip("/"), base_name(v.name)}
    ]
    exact = [v for v in found if called & {v.name, (v.name or "").lstrip("/"), v.modality}]
    if len(exact or found) == 1:
        return (exact or found)[0]
    for refused in contents.refused:
        if called & {refused.name, refused.name.lstrip("/"), base_name(refused.name)}:
            raise _refusal(contents, refused)
    for phrase in contents.unpooled:
        if called & {phrase.split(" ")[0], base_name(phrase.split(" ")[0])}:
            raise _several_each(contents, (phrase,))
    raise _candidates(contents, "no such array" if not found else "ambiguous array", list(contents.vectors))


def _left_out(contents: Contents, taken: Sequence[Vectors]) -> str | None:
    """Return the sentence on arrays of floats that are not taken though they have a row for each instance."""
    rows = {one.rows for one in taken}
    left = [str(one) for one in contents.vectors if one not in taken and one.dtype in FLOATS and one.rows in rows]
    sentences = [f"left out: {', '.join(left)}."] if left else []
    if contents.unpooled:
        shown = ", ".join(contents.unpooled[:5])
        sentences.append(f"left out, as they hold several vectors of an instance: {shown}; --pool mean takes them.")
    if contents.refused:
        shown = ", ".join(f"{one.name} ({one.found})" for one in contents.refused[:5])
        sentences.append(f"not read: {shown}.")
    return printable(" ".join(sentences)) if sentences else None


def _refusal(contents: Contents, refused: Refused) -> PolicyError:
    return PolicyError(
        what="refused",
        at=Place(contents.file, refused.name),
        found=refused.found,
        expected=refused.expected,
        next_step=refused.next_step,
    )


def _several_each(contents: Contents, phrases: Sequence[str]) -> DataError:
    shown = ", ".join(phrases[:5]) + (", …" if len(phrases) > 5 else "")
    return DataError(
        what="several vectors per instance",
        at=Place(contents.file),
        found=shown,
        expected="one vector per instance",
        next_step="Pass --pool mean (or max, or first) to make one of them.",
    )


def _usable(contents: Contents, vectors: Vectors) -> Vectors:
    if not vectors.rows:
        raise _no_rows(contents, vectors.name)
    if vectors.dtype not in FLOATS:
        raise DataError(
            what="integer features",
            at=Place(contents.file, vectors.name),
            found=vectors.dtype,
            expected=f"one of {', '.join(FLOATS)}",
            next_step="Convert the array to float32 if its numbers are measurements.",
        )
    return vectors


def _no_rows(contents: Contents, name: str | None) -> DataError:
    return DataError(
        what="no rows",
        at=Place(contents.file, name),
        found="0 rows",
        expected="at least one instance",
        next_step="Write the features again, or leave the file out.",
    )


def _nothing(contents: Contents) -> PmrlError:
    if contents.unpooled:
        return _several_each(contents, contents.unpooled)
    if contents.refused:
        return _refusal(contents, contents.refused[0])
    if contents.columns and not any(column.rows for column in contents.columns):
        return _no_rows(contents, None)
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
    other = contents.others or contents.unpooled or contents.refused
    return not (usable or meant or other) and bool(id_columns(contents, None, id_column))


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
    if not found and not id_column:
        indices = [one for one in contents.columns if one.index and (vectors is None or one.rows == vectors.rows)]
        found = {one.name: one for one in indices[:1]}
    return found


def choose_ids(
    arrays: Sequence[tuple[Contents, Vectors, str | None]], id_column: Sequence[str]
) -> list[Column | None]:
    """Return the id column of each array.

    That is, of the columns asked for the first that the file has; else what its format says names its rows; else one
    of the usual names, the same for all arrays where there is one; else the index of a data frame.

    Args:
        arrays: each with its file and its modality, if that is known.
        id_column: as in ``ReadOptions``.

    Raises: DataError if a column asked for is in no file, or the only ids of a file are not one per row.
    """
    _check_asked(arrays, id_column)
    asked = [_asked_for(contents, vectors, name, id_column) for contents, vectors, name in arrays]
    options = [
        {} if column is not None or vectors.ids else id_columns(contents, vectors, ())
        for (contents, vectors, _), column in zip(arrays, asked, strict=True)
    ]
    shared = next((name for name in ID_NAMES if all(name in found for found in options if found)), None)
    chosen: list[Column | None] = []
    for (contents, vectors, _), column, found in zip(arrays, asked, options, strict=True):
        if column is None and vectors.ids is not None:
            column = next(one for one in contents.columns if one.name == vectors.ids)
        if column is None:
            column = found[shared] if shared in found else next(iter(found.values()), None)
        if column is None:
            _refuse_misfit(contents, vectors)
        chosen.append(column)
    return chosen


def _parted(asked: str, name: str | None) -> tuple[str | None, str]:
    """Return (modality, column) of ``NAME=COLUMN``, (None, column) of a column for all."""
    modality, equals, column = asked.partition("=")
    return (modality, column) if equals and (name is None or modality) else (None, asked)


def _asked_for(contents: Contents, vectors: Vectors, name: str | None, id_column: Sequence[str]) -> Column | None:
    parted = [_parted(one, name) for one in id_column]
    wanted = [column for modality, column in parted if modality is not None and modality == name]
    wanted += [column for modality, column in parted if modality is None]
    found = id_columns(contents, vectors, wanted) if wanted else {}
    return next(iter(found.values()), None)


def _check_asked(arrays: Sequence[tuple[Contents, Vectors, str | None]], id_column: Sequence[str]) -> None:
    """Refuse a column of ids that no file has, or that fits no array.

    Raises: DataError.
    """
    for asked in id_column:
        modality, column = _parted(asked, None)
        of = [(contents, vectors) for contents, vectors, name in arrays if modality in (None, name)]
        if not arrays or any(id_columns(contents, vectors, (column,)) for contents, vectors in of):
            continue
        contents, vectors = (of or [(arrays[0][0], arrays[0][1])])[0]
        named = [one for one in contents.columns if _matches(one, column)]
        if any(one.nameable for one in named):
            raise _misfit(contents, vectors, next(one for one in named if one.nameable))
        columns = ", ".join(f"{one.name} ({one.rows})" for one in contents.columns[:8]) or "no column"
        raise DataError(
            what="no ids",
            at=Place(contents.file, named[0].name if named else None),
            found="neither text nor integers" if named else columns if of else f"no modality {modality!r}",
            expected=f"a column {column!r} of ids",
            next_step="Choose a column with --id-column.",
        )


def _misfit(contents: Contents, vectors: Vectors, column: Column) -> DataError:
    return DataError(
        what="ids and rows differ in number",
        at=Place(contents.file, column.name),
        found=f"{column.rows} ids",
        expected=f"{vectors.rows}, as {vectors.name or 'the array'} has rows",
        next_step="Write one id per row, or choose another column with --id-column.",
    )


def _refuse_misfit(contents: Contents, vectors: Vectors) -> None:
    named = [column for column in contents.columns if any(_matches(column, name) for name in ID_NAMES)]
    typed = [column for column in named if column.nameable]
    if typed:
        raise _misfit(contents, vectors, typed[0])
    if named:
        raise DataError(
            what="no ids",
            at=Place(contents.file, named[0].name),
            found="neither text nor integers",
            expected="text or integers",
            next_step="Choose a column with --id-column.",
        )
    for one in contents.vectors:
        if one is not vectors and one.dtype not in FLOATS and base_name(one.name or "") in ID_NAMES:
            raise DataError(
                what="no ids",
                at=Place(contents.file, one.name),
                found=f"{one.rows} x {one.dim} {one.dtype}",
                expected="one id for each row",
                next_step="Write one id per row, or pass --by-row if row i is the same instance in all files.",
            )
    for refused in contents.refused:
        if base_name(refused.name) in ID_NAMES:
            raise _refusal(contents, refused)


def refuse_per_sample(contents: Contents, vectors: Sequence[Vectors], id_column: Sequence[str]) -> None:
    """Refuse a file that is one sample: coordinates beside features, and no ids.

    Raises: DataError.
    """
    names = [*(v.name or "" for v in contents.vectors), *(c.name for c in contents.columns), *contents.others]
    beside = any(base_name(name.split(" ")[0]).lower() in ("coords", "coordinates") for name in names)
    if beside and not any(v.ids or id_columns(contents, v, id_column) for v in vectors):
        raise per_sample_error(contents.file, "coordinates beside features without ids")


def per_sample_error(file: str, found: str) -> DataError:
    """Return the refusal of a layout with one file per sample that is given file by file."""
    return DataError(
        what="one file or group per sample",
        at=Place(file),
        found=found,
        expected="one row per instance",
        next_step="Give the folder of such files and --pool mean, which makes one vector of each.",
    )
