"""From FILES to a plan: the modalities, their shards, their ids and the side tables. No features are read.

Every fault goes to ``report``: reading raises the first, inspecting keeps them all and goes on with the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pmrl_cli.data.read_options import ReadOptions
from pmrl_cli.data.validate import check_unique, text_ids
from pmrl_cli.errors import DataError, Place, PmrlError, UsageError
from pmrl_cli.files.formats.contents import BFLOAT16, FLOATS, Column, Contents, Vectors
from pmrl_cli.files.join.choosing import (
    PER_SAMPLE,
    choose_ids,
    choose_vectors,
    id_columns,
    is_side_table,
    per_sample_error,
    refuse_per_sample,
)
from pmrl_cli.files.join.naming import array_names, missing_shards, modality_names, natural_key, never_features
from pmrl_cli.files.join.side_table import SideTable, side_tables
from pmrl_cli.files.join.specs import Item, Report, expand, probe

__all__ = ["Modality", "Plan", "discover"]


@dataclass(frozen=True)
class Modality:
    """One modality as it lies in files.

    Args:
        name: the modality.
        shards: its arrays in natural order of their files, all of one dim.
        ids: (rows,) Arrow large_string over all shards.
        id_name: column the ids came from, None where they are row numbers.
    """

    name: str
    shards: tuple[Vectors, ...]
    ids: pa.LargeStringArray
    id_name: str | None

    @property
    def rows(self) -> int:
        """Rows of all shards."""
        return sum(shard.rows for shard in self.shards)

    @property
    def dim(self) -> int:
        """Columns."""
        return self.shards[0].dim

    @property
    def dtype(self) -> str:
        """Type it is stored in: float16 or bfloat16 if all shards are, else float32."""
        kinds = {shard.dtype for shard in self.shards}
        return kinds.pop() if kinds in ({"float16"}, {BFLOAT16}) else "float32"


@dataclass(frozen=True)
class Plan:
    """What FILES hold, ready to be joined.

    Args:
        modalities: ordered by the bytes of their names.
        side: side tables, in the order given.
        named_by_row: True if no file has ids.
        notes: what was decided, one sentence each.
    """

    modalities: tuple[Modality, ...]
    side: tuple[SideTable, ...]
    named_by_row: bool
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Array:
    """One array on its way to a modality; ``name`` is None until the file names are compared."""

    contents: Contents
    vectors: Vectors
    name: str | None
    guessed: bool


def discover(files: Sequence[str], report: Report, options: ReadOptions = ReadOptions()) -> Plan:
    """Find the modalities of FILES.

    Args:
        files: as typed.
        report: takes every error.
        options: how to read them.

    Raises: whatever ``report`` raises.
    """
    items, notes = expand(files, report)
    probed = _probe_all(items, report)
    side_files = {options.labels.resolve(): options.labels} if options.labels is not None else {}
    feature_items: list[tuple[Item, Contents]] = []
    for item, contents in probed:
        store = item.path.is_dir()
        if (
            len(contents.columns) > 1
            if store
            else item.dataset is None and is_side_table(contents, options.id_column)
        ):
            side_files.setdefault(item.path.resolve(), item.path)
        if store or item.path.resolve() not in side_files:
            feature_items.append((item, contents))
    arrays = _choose_all(feature_items, options.feature_column, options.id_column, notes, report)
    modalities, named_by_row = _modalities(arrays, options.id_column, notes, report)
    for contents in {array.contents.file: array.contents for array in arrays}.values():
        notes += contents.notes
    if len(modalities) < options.min_modalities:
        names = ", ".join(modality.name for modality in modalities)
        tables = ", ".join(str(file) for file in list(side_files.values())[:5])
        report(
            DataError(
                what="too few modalities",
                found=f"{len(modalities)} ({names})"
                if names
                else f"none, only side tables ({tables})"
                if tables
                else "none",
                expected=f"at least {options.min_modalities}",
                next_step="Name features of another modality too, or give one its name with name=path.",
            )
        )
    side = side_tables(side_files.values(), options.id_column, report)
    return Plan(modalities, side, named_by_row, tuple(notes))


def _probe_all(items: Iterable[Item], report: Report) -> list[tuple[Item, Contents]]:
    known: dict[Path, Contents | None] = {}
    for item in items:
        if item.path not in known:
            try:
                known[item.path] = probe(item.path)
            except PmrlError as error:
                known[item.path] = None
                report(error)
    pairs = [(item, known[item.path]) for item in items]
    return [(item, contents) for item, contents in pairs if contents is not None]


def _has_floats(contents: Contents) -> bool:
    return any(v.dtype in FLOATS and not never_features(v.name or "") for v in contents.vectors)


def _choose_all(
    items: Sequence[tuple[Item, Contents]],
    feature_column: str | None,
    id_column: Sequence[str],
    notes: list[str],
    report: Report,
) -> list[_Array]:
    alone = len({contents.file for _, contents in items if _has_floats(contents)}) == 1
    times = Counter(item.path for item, _ in items)
    arrays: list[_Array] = []
    for item, contents in items:
        try:
            found = _choose_one(item, contents, feature_column, notes, alone=alone, repeated=times[item.path] > 1)
            if item.name is None and item.dataset is None and not item.path.is_dir():
                refuse_per_sample(contents, [array.vectors for array in found], id_column)
            arrays += found
        except PmrlError as error:
            report(error)
    guessed = [index for index, array in enumerate(arrays) if array.name is None]
    for index, name in zip(guessed, modality_names([Path(arrays[i].contents.file) for i in guessed]), strict=True):
        arrays[index] = replace(arrays[index], name=name)
    return arrays


def _choose_one(
    item: Item, contents: Contents, feature_column: str | None, notes: list[str], *, alone: bool, repeated: bool
) -> list[_Array]:
    if item.path.is_dir():
        if item.name is not None:
            raise UsageError(
                what="a store names its own modalities",
                at=Place(str(item.path)),
                found=f"the name {item.name!r}",
                expected="the path alone",
                next_step=f"Type {item.path}.",
            )
        return [_Array(contents, vectors, vectors.name, guessed=False) for vectors in contents.vectors]
    wanted = item.dataset if item.dataset is not None else feature_column
    choice = choose_vectors(contents, wanted, flagged=item.dataset is None, alone=alone and item.name is None)
    if choice.note is not None:
        notes.append(f"{item.path.name}: {choice.note}")
    names: list[str | None] = [item.name] * len(choice.vectors)
    if len(choice.vectors) > 1:
        names = list(array_names([vectors.name or "" for vectors in choice.vectors]))
    elif repeated and item.name is None:
        names = list(array_names([choice.vectors[0].name or ""]))
    return [
        _Array(contents, vectors, name, guessed=item.name is None)
        for vectors, name in zip(choice.vectors, names, strict=True)
    ]


def _modalities(
    arrays: Sequence[_Array], id_column: Sequence[str], notes: list[str], report: Report
) -> tuple[tuple[Modality, ...], bool]:
    usable: list[_Array] = []
    for array in arrays:
        try:
            choose_ids([(array.contents, array.vectors)], id_column)  # each alone, to report every misfit
            usable.append(array)
        except PmrlError as error:
            report(error)
    columns = choose_ids([(array.contents, array.vectors) for array in usable], id_column)
    nameless = [array for array, column in zip(usable, columns, strict=True) if column is None]
    if nameless and len(nameless) < len(usable):
        report(_some_without_ids(nameless))
        usable = [array for array, column in zip(usable, columns, strict=True) if column is not None]
        columns = [column for column in columns if column is not None]
    groups: dict[str, list[tuple[_Array, Column | None]]] = {}
    for pair in zip(usable, columns, strict=True):
        groups.setdefault(pair[0].name or "", []).append(pair)
    modalities: list[Modality] = []
    kinds: dict[str, tuple[Place, str]] = {}
    for name in sorted(groups, key=str.encode):
        shards = sorted(groups[name], key=lambda pair: natural_key(pair[0].contents.file))
        try:
            _check_name(name, shards[0][0])
            _check_shards(name, [array for array, _ in shards])
            modalities.append(_modality(name, shards, kinds))
            missing = missing_shards([Path(array.contents.file).stem for array, _ in shards])
            if missing:
                shown = ", ".join(missing[:3]) + (", …" if missing[3:] else "")
                notes.append(f"{name}: not all of its files are here, {shown} missing.")
        except PmrlError as error:
            report(error)
    notes += _look_alikes(modalities)
    named_by_row = bool(modalities) and all(modality.id_name is None for modality in modalities)
    if named_by_row:
        _check_row_order(modalities, notes, report)
    if len({kind for _, kind in kinds.values()}) > 1:
        report(_mixed_types(kinds))
    return tuple(modalities), named_by_row


def _some_without_ids(nameless: Sequence[_Array]) -> DataError:
    places = [Place(array.contents.file, array.vectors.name) for array in nameless]
    return DataError(
        what="some files have ids and some have none",
        at=places[0],
        others=places[1:],
        found="no ids",
        expected="ids in every file or in none",
        next_step="Add ids, or name their column with --id-column.",
    )


def _check_name(name: str, array: _Array) -> None:
    if not name.isprintable():
        raise DataError(
            what="modality name cannot be shown",
            at=Place(array.contents.file, array.vectors.name),
            found=repr(name[:80]),
            expected="printable characters",
            next_step="Name it with name=path.",
        )


def _check_shards(name: str, arrays: Sequence[_Array]) -> None:
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
    nameless = all(array.guessed and not id_columns(array.contents, array.vectors, ()) for array in arrays)
    # real shards are of one length but for the last
    if nameless and len(arrays) > PER_SAMPLE and len(set(rows[:-1])) > 1:
        raise per_sample_error(
            first.contents.file, f"{len(arrays)} files of {first.vectors.dim} columns and unequal rows without ids"
        )


def _modality(
    name: str, shards: Sequence[tuple[_Array, Column | None]], kinds: dict[str, tuple[Place, str]]
) -> Modality:
    vectors = tuple(array.vectors for array, _ in shards)
    named = [(array, column) for array, column in shards if column is not None]
    if not named:
        return Modality(name, vectors, _row_numbers(sum(shard.rows for shard in vectors)), None)
    parts, places = [], []
    for array, column in named:
        values = column.load(text=True)
        place = Place(array.contents.file, column.name)
        kinds.setdefault(name, (place, "integers" if pa.types.is_integer(values.type) else "text"))
        parts.append(text_ids(values, file=array.contents.file, dataset=column.name))
        places.append((array.contents.file, column.name, array.vectors.rows))
    ids = pa.concat_arrays(parts)
    check_unique(ids, places)
    return Modality(name, vectors, ids, named[0][1].name)


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


def _check_row_order(modalities: Sequence[Modality], notes: list[str], report: Report) -> None:
    if len({modality.rows for modality in modalities}) > 1:
        places = [Place(modality.shards[0].file) for modality in modalities]
        if len(modalities) > PER_SAMPLE and len({modality.dim for modality in modalities}) == 1:
            found = f"{len(modalities)} files of {modalities[0].dim} columns and unequal rows without ids"
            report(per_sample_error(places[0].file, found))
            return
        report(
            DataError(
                what="no file has ids and rows differ in number",
                at=places[0],
                others=places[1:],
                found=", ".join(f"{modality.name} {modality.rows}" for modality in modalities[:8]),
                expected="ids, or equal rows in equal order",
                next_step="Add ids, or name their column with --id-column.",
            )
        )
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
