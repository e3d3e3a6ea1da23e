"""Arrays of files to modalities: their ids, their shards, and whether rows may stand for ids."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pmrl_cli.data.dataset import OWN_AXES
from pmrl_cli.data.read_options import ReadOptions
from pmrl_cli.data.repeated_ids import repeats_ids
from pmrl_cli.data.validate import check_unique, text_ids
from pmrl_cli.errors import DataError, Place, PmrlError, printable
from pmrl_cli.files.formats.contents import BFLOAT16, Column, Contents, Vectors
from pmrl_cli.files.formats.layout import FRAMES, MANY
from pmrl_cli.files.formats.names import SPLIT_NAMES, natural_key
from pmrl_cli.files.join.candidates import could_be_ids, refuse_row_join, shared_column
from pmrl_cli.files.join.choosing import choose_ids, id_columns, per_sample_error
from pmrl_cli.files.join.naming import missing_shards, own_names, split_of
from pmrl_cli.files.join.patterns import check_names, pattern_for, taken
from pmrl_cli.files.join.side_table import column_names
from pmrl_cli.files.join.specs import Report

__all__ = ["ArrayOf", "Modality", "modalities_of"]


@dataclass(frozen=True)
class ArrayOf:
    """One array on its way to a modality; ``name`` is None until the file names are compared."""

    contents: Contents
    vectors: Vectors
    name: str | None
    guessed: bool


@dataclass(frozen=True)
class Modality:
    """One modality as it lies in files.

    Args:
        name: the modality.
        shards: its arrays in natural order of their files, all of one dim.
        ids: (rows,) Arrow large_string over all shards.
        id_name: column the ids came from, None where they are row numbers.
        contents: of the file of each shard.
        splits: of each shard, the part of the data set that its file is named after; empty if they are not.
        averaged: whether the rows of one id become their mean.
    """

    name: str
    shards: tuple[Vectors, ...]
    ids: pa.LargeStringArray
    id_name: str | None
    contents: tuple[Contents, ...] = field(default=(), repr=False)
    splits: tuple[str, ...] = ()
    averaged: bool = False

    @property
    def rows(self) -> int:
        """Rows of all shards."""
        return sum(shard.rows for shard in self.shards)

    @property
    def dim(self) -> int:
        """Columns."""
        return self.shards[0].dim

    @property
    def axes(self) -> str:
        """Which matrix its columns are principal axes of; empty for columns that mean the same everywhere."""
        return self.shards[0].axes

    @property
    def dtype(self) -> str:
        """Type it is stored in: float16 or bfloat16 if all shards are and no mean is taken, else float32."""
        if self.averaged:
            return "float32"
        kinds = {shard.dtype for shard in self.shards}
        return kinds.pop() if kinds in ({"float16"}, {BFLOAT16}) else "float32"


_REPEATS = (
    "Say with --on-repeat pair, mean or first what the rows of one id are, or choose another column with --id-column."
)

Pair = tuple[ArrayOf, Column | None]


def modalities_of(
    arrays: Sequence[ArrayOf], options: ReadOptions, notes: list[str], report: Report
) -> tuple[tuple[Modality, ...], bool]:
    """Return the modalities that arrays are, and whether their instances are known by row.

    Args:
        arrays: named.
        options: how the ids are found.
        notes: takes what was decided.
        report: takes every error.
    """
    pairs = _identified(arrays, options, report)
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(pair[0].name or "", []).append(pair)
    modalities: list[Modality] = []
    kinds: dict[str, tuple[Place, str]] = {}
    for name in sorted(groups, key=os.fsencode):  # a file's name need not be UTF-8: refused below
        shards = _in_order(groups[name])
        try:
            _check_name(name, shards[0][0])
            _check_shards(name, [array for array, _ in shards], by_row=options.by_row)
            modalities.append(_modality(name, shards, kinds, options))
            missing = missing_shards([Path(array.contents.file).stem for array, _ in shards])
            if missing:
                shown = ", ".join(missing[:3]) + (", …" if missing[3:] else "")
                notes.append(f"{name}: not all of its files are here, {shown} missing.")
        except PmrlError as error:
            report(_with_other_ids(error, groups.values()) if not options.id_column else error)
    try:
        check_names(options.id_pattern, [modality.name for modality in modalities])
    except PmrlError as error:
        report(error)
    notes += _look_alikes(modalities)
    named_by_row = bool(modalities) and all(modality.id_name is None for modality in modalities)
    if named_by_row:
        _check_row_order(modalities, options, notes, report)
    if len({kind for _, kind in kinds.values()}) > 1:
        report(_mixed_types(kinds))
    return tuple(modalities), named_by_row


def _with_other_ids(error: PmrlError, groups: Iterable[Sequence[Pair]]) -> PmrlError:
    """Return an error on repeated ids that names a column without repeats, if all modalities have one in common."""
    files = [([array.contents for array, _ in group], [array.vectors for array, _ in group]) for group in groups]
    better = shared_column(files) if error.what == "duplicate id" else None
    if better is None:
        return error
    other = f"Type --id-column {better[0]}, whose values are distinct and shared, or s{_REPEATS[1:]}"
    return type(error)(
        error.what,
        found=error.found,
        expected=error.expected,
        next_step=printable(error.next_step.replace(_REPEATS, other)),
        at=error.at,
        others=error.others,
        total=error.total,
    )


def _in_order(shards: Sequence[Pair]) -> list[Pair]:
    """Return shards in the natural order of their files; the parts of a split as train, validation, test."""
    words = [split_of(Path(array.contents.file)) for array, _ in shards]
    order = {word: at for at, word in enumerate(SPLIT_NAMES)}
    parts = None not in words and len(set(words)) > 1
    ranks = [order[word] if parts and word else 0 for word in words]
    keyed = sorted(range(len(shards)), key=lambda at: (ranks[at], natural_key(shards[at][0].contents.file)))
    return [shards[at] for at in keyed]


def _identified(arrays: Sequence[ArrayOf], options: ReadOptions, report: Report) -> list[Pair]:
    """Return each array with the column of its ids, None for all if rows stand for them."""
    if options.by_row:
        return [(array, None) for array in arrays]
    usable: list[ArrayOf] = []
    for array in arrays:
        try:
            # each alone, to report every misfit
            choose_ids([(array.contents, array.vectors, array.name)], _asked_of(options, array, arrays))
            usable.append(array)
        except PmrlError as error:
            report(error)
    try:
        found = [(array.contents, array.vectors, array.name) for array in usable]
        columns = choose_ids(found, _asked_of_features(options, usable))
    except PmrlError as error:
        report(error)
        return []
    pairs = list(zip(usable, columns, strict=True))
    nameless = [array for array, column in pairs if column is None]
    if nameless and len(nameless) < len(usable):
        report(_some_without_ids(nameless))
        return [(array, column) for array, column in pairs if column is not None]
    return pairs


def _asked_of_features(options: ReadOptions, arrays: Sequence[ArrayOf]) -> Sequence[str]:
    """Return the columns asked for, without those that are of the side table alone.

    Raises: as ``column_names``.
    """
    if options.labels is None or not options.id_column:
        return options.id_column
    of_table = column_names(options.labels)
    return [
        one
        for one in options.id_column
        if one not in of_table or any(id_columns(array.contents, array.vectors, (one,)) for array in arrays)
    ]


def _asked_of(options: ReadOptions, array: ArrayOf, arrays: Sequence[ArrayOf]) -> Sequence[str]:
    """Return the columns asked for that this array has: another file may have the others."""
    return [one for one in options.id_column if len(arrays) == 1 or id_columns(array.contents, array.vectors, (one,))]


def _some_without_ids(nameless: Sequence[ArrayOf]) -> DataError:
    places = [Place(array.contents.file, array.vectors.name) for array in nameless]
    could = [column.name for array in nameless[:1] for column, _ in could_be_ids(array.contents, array.vectors)]
    hint = f"--id-column {could[0]}" if could else "--ids FILE (one id a row)"
    return DataError(
        what="some files have ids and some have none",
        at=places[0],
        others=places[1:],
        found="no ids" + (f"; these could be: {', '.join(could[:5])}" if could else ""),
        expected="ids in every file or in none",
        next_step=f"Name them with {hint}, or pass --by-row if row i is the same instance in all files.",
    )


def _check_name(name: str, array: ArrayOf) -> None:
    if not name.isprintable():
        raise DataError(
            what="modality name cannot be shown",
            at=Place(array.contents.file, array.vectors.name),
            found=repr(name[:80]),
            expected="printable characters",
            next_step="Name it with name=path.",
        )


def _check_shards(name: str, arrays: Sequence[ArrayOf], *, by_row: bool) -> None:
    first, rows = arrays[0], [array.vectors.rows for array in arrays]
    for array in arrays:
        if array.vectors.dim != first.vectors.dim:
            raise DataError(
                what=f"shards of modality {name!r} differ in columns",
                at=Place(array.contents.file, array.vectors.name),
                found=f"{array.vectors.dim}",
                expected=f"{first.vectors.dim} as in {first.contents.file}",
                next_step="If they are two modalities, name them with name=path.",
            )
        if array.vectors.axes != first.vectors.axes:
            raise DataError(
                what=f"shards of modality {name!r} are reduced along axes of their own",
                at=Place(array.contents.file, array.vectors.name),
                found="the truncated SVD of this matrix alone",
                expected=f"the axes of {first.contents.file}",
                next_step=OWN_AXES,
            )
    nameless = all(array.guessed and not id_columns(array.contents, array.vectors, ()) for array in arrays)
    several = 1 < rows[0] <= FRAMES and len(set(rows)) == 1
    if nameless and several and len(arrays) > MANY and not by_row and "-of-" not in first.contents.file:
        raise DataError(
            what="files of one instance each, or parts of one array",
            at=Place(first.contents.file),
            found=f"{len(arrays)} files of {rows[0]} x {first.vectors.dim} without ids",
            expected="to know which",
            next_step="Pass --pool mean if each is an instance, or --by-row if they are parts in the order of rows.",
        )
    # real shards are of one length but for the last
    if nameless and len(arrays) > MANY and len(set(rows[:-1])) > 1:
        raise per_sample_error(
            first.contents.file, f"{len(arrays)} files of {first.vectors.dim} columns and unequal rows without ids"
        )


def _modality(
    name: str, shards: Sequence[Pair], kinds: dict[str, tuple[Place, str]], options: ReadOptions
) -> Modality:
    vectors = tuple(array.vectors for array, _ in shards)
    contents = tuple(array.contents for array, _ in shards)
    words = [split_of(Path(array.contents.file)) for array, _ in shards]
    splits = tuple(word or "" for word in words) if None not in words and len(set(words)) > 1 else ()
    named = [(array, column) for array, column in shards if column is not None]
    if not named:
        return Modality(name, vectors, _row_numbers(sum(shard.rows for shard in vectors)), None, contents, splits)
    parts, places = [], []
    pattern = pattern_for(options.id_pattern, name)
    for array, column in named:
        values = column.load(text=True)
        place = Place(array.contents.file, column.name)
        kinds.setdefault(name, (place, "integers" if pa.types.is_integer(values.type) else "text"))
        ids = text_ids(values, file=array.contents.file, dataset=column.name)
        parts.append(ids if pattern is None else taken(ids, pattern, place))
        places.append((array.contents.file, column.name, array.vectors.rows))
    ids = pa.concat_arrays(parts)
    if options.on_repeat == "error":
        check_unique(ids, places, _REPEATS + _if_modalities(parts, [file for file, _, _ in places]))
    averaged = options.on_repeat == "mean" and repeats_ids(ids)
    return Modality(name, vectors, ids, named[0][1].name, contents, splits, averaged)


def _if_modalities(ids: Sequence[pa.LargeStringArray], files: Sequence[str]) -> str:
    """Return how to name files that hold the same ids: they look like modalities, not like parts of one."""
    distinct = all(pc.count_distinct(of_one).as_py() == len(of_one) for of_one in ids)
    shared = [int(pc.sum(pc.is_in(of_one, value_set=ids[0])).as_py() or 0) for of_one in ids]
    named = own_names(files)
    if not named or not distinct or any(2 * n < len(of_one) for n, of_one in zip(shared, ids, strict=True)):
        return ""
    return f" If each is a modality of its own, give {named} instead."


def _look_alikes(modalities: Sequence[Modality]) -> list[str]:
    """Return a note if ids of two modalities differ only in how Unicode composes them: they are not joined."""
    seen: dict[str, tuple[str, str]] = {}
    for modality in modalities:
        beyond = modality.ids.filter(pc.invert(pc.string_is_ascii(modality.ids)))
        composed = pc.utf8_normalize(beyond, form="NFC")
        for text, plain in zip(beyond.to_pylist(), composed.to_pylist(), strict=True):
            name, other = seen.setdefault(plain, (modality.name, text))
            if other != text:
                return [
                    f"ids differ only by Unicode normalisation and are not joined, as {other!r} of {name} and "
                    f"{text!r} of {modality.name} (both {plain!r} in NFC)."
                ]
    return []


def _row_numbers(rows: int) -> pa.LargeStringArray:
    return pa.array(np.arange(rows)).cast(pa.large_string())


def _check_row_order(modalities: Sequence[Modality], options: ReadOptions, notes: list[str], report: Report) -> None:
    """Refuse to take rows for instances where they differ in number, or where something could be ids."""
    places = [Place(modality.shards[0].file) for modality in modalities]
    if len({modality.rows for modality in modalities}) > 1:
        if len(modalities) > MANY and len({modality.dim for modality in modalities}) == 1:
            found = f"{len(modalities)} files of {modalities[0].dim} columns and unequal rows without ids"
            report(per_sample_error(places[0].file, found))
            return
        turned = len({modality.dim for modality in modalities}) == 1 and len({place.file for place in places}) == 1
        report(
            DataError(
                what="no file has ids and rows differ in number",
                at=places[0],
                others=places[1:],
                found=", ".join(f"{modality.name} {modality.rows} x {modality.dim}" for modality in modalities[:8]),
                expected="ids, or equal rows in equal order",
                next_step="They look transposed, as MATLAB writes them: give the file a name that ends in .mat."
                if turned
                else "Add ids: name their column with --id-column, or give a file of them with --ids.",
            )
        )
        return
    if options.by_row:
        notes.append("row i of every file is taken for the same instance (--by-row).")
        return
    files = [(modality.contents, modality.shards) for modality in modalities]
    try:
        refuse_row_join(files)
    except PmrlError as error:
        report(error)
        return
    notes.append("no file has ids: row i of every file is taken for the same instance.")


def _mixed_types(kinds: Mapping[str, tuple[Place, str]]) -> DataError:
    text = next(place for place, kind in kinds.values() if kind == "text")
    number = next(place for place, kind in kinds.values() if kind == "integers")
    return DataError(
        what="ids of mixed type",
        at=number,
        found="integers",
        expected=f"text as in {text}",
        next_step="Write the ids as text in both files.",
    )
