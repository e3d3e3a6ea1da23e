"""From FILES to a plan: the modalities, their shards, their ids and the side tables. No features are read.

Every fault goes to ``report``: reading raises the first, inspecting keeps them all and goes on with the rest.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pmrl_cli.data.read_options import ReadOptions
from pmrl_cli.errors import DataError, Place, PmrlError, UsageError
from pmrl_cli.files.formats.contents import FLOATS, Contents, ProbeOptions
from pmrl_cli.files.formats.names import never_features
from pmrl_cli.files.formats.probe import probe
from pmrl_cli.files.join.beside import with_ids_beside
from pmrl_cli.files.join.choosing import choose_vectors, has_array, is_side_table, refuse_per_sample
from pmrl_cli.files.join.items import Item
from pmrl_cli.files.join.modalities import ArrayOf, Modality, modalities_of
from pmrl_cli.files.join.naming import array_names, modality_names, own_names
from pmrl_cli.files.join.side_table import SideTable, own_tables, side_tables
from pmrl_cli.files.join.specs import Report, expand

__all__ = ["Plan", "discover"]

_LISTED = 5
"""Files of one folder with one fault are named together if there are more."""

_COLUMNS = 8
"""More numeric columns than this are named by a pattern."""


@dataclass(frozen=True)
class Plan:
    """What FILES hold, ready to be joined.

    Args:
        modalities: ordered by the bytes of their names.
        side: side tables, in the order given.
        named_by_row: True if instances are known by their row.
        notes: what was decided, one sentence each.
    """

    modalities: tuple[Modality, ...]
    side: tuple[SideTable, ...]
    named_by_row: bool
    notes: tuple[str, ...]


Found = tuple[Item, Contents]


def discover(files: Sequence[str], report: Report, options: ReadOptions = ReadOptions()) -> Plan:
    """Find the modalities of FILES.

    Args:
        files: as typed.
        report: takes every error.
        options: how to read them.

    Raises: whatever ``report`` raises.
    """
    errors: list[PmrlError] = []

    def kept(error: PmrlError) -> None:
        errors.append(error)
        report(error)

    items, notes = expand(files, kept, options.pool)
    labels = None if options.labels is None else options.labels.resolve()
    features: list[Found] = []
    tables: list[Found] = []
    for item, contents in _with_ids(_probe_all(items, options, kept), options, notes, kept):
        if item.dataset is None and is_side_table(contents, options.id_column):
            tables.append((item, contents))
        elif not (item.path.resolve() == labels and _no_vectors(contents)):  # it may hold both
            features.append((item, contents))
    arrays = _choose_all(features, options, notes, kept)
    modalities, named_by_row = modalities_of(arrays, options, notes, kept)
    for contents in {array.contents.file: array.contents for array in arrays}.values():
        notes += contents.notes
    if len(modalities) < options.min_modalities and not errors:  # else those errors are the reason
        kept(_too_few(modalities, tables, items, options.min_modalities))
    side = own_tables(modalities, notes, kept)
    reference = modalities[0].ids if modalities else None
    side += side_tables([item.path for item, _ in tables], options, reference, side, kept)
    return Plan(modalities, side, named_by_row, tuple(notes))


def _no_vectors(contents: Contents) -> bool:
    return not any(one.name is None or not never_features(one.name) for one in contents.vectors)


def _too_few(modalities: Sequence[Modality], tables: Sequence[Found], items: Sequence[Item], least: int) -> DataError:
    names = ", ".join(modality.name for modality in modalities)
    shown = ", ".join(contents.file for _, contents in tables[:5])
    files = [modality.shards[0].file for modality in modalities] + [contents.file for _, contents in tables]
    found = f"{len(modalities)} ({names})" if names else "none"
    parts = own_names([shard.file for shard in modalities[0].shards]) if len(modalities) == 1 else ""
    named = f" If each file is a modality of its own, give {parts} instead." if parts else ""
    return DataError(
        what="too few modalities",
        at=Place((files or [str(item.path) for item in items] or [""])[0]),
        found=f"{found}, and side tables ({shown})" if shown else found,
        expected=f"at least {least}",
        next_step=next((hint for _, one in tables if (hint := _columns_hint(one))), None)
        or f"Name features of another modality too, or set a name with name=path.{named}",
    )


def _columns_hint(table: Contents) -> str | None:
    """Return how to take the numeric columns of a side table for a vector, None if it has not several."""
    names = [one.name for one in table.columns if not one.nameable]
    if len(names) < 2 or any(set(name) & set("*?[, ") for name in names):
        return None
    columns = ",".join(names) if len(names) <= _COLUMNS else "*"
    return f"Type {shlex.quote(f'{table.file}#{columns}')} if these numeric columns are one vector."


def _probe_all(items: Iterable[Item], options: ReadOptions, report: Report) -> list[Found]:
    known: dict[object, Contents | None] = {}
    found: list[Found] = []
    with _Together(report) as report_fault:
        for item in items:
            column = item.dataset or options.feature_column
            several = column if column is not None and set(column) & set("*?,") else None
            asked = ProbeOptions(options.pool, several, item.members, options.components)
            key = (item.path, item.form, asked)
            if key not in known:
                try:
                    known[key] = probe(item.path, asked, item.form)
                except PmrlError as error:
                    known[key] = None
                    report_fault(error)
            contents = known[key]
            if contents is not None:
                found.append((item, contents))
    return found


class _Together:
    """Passes errors on, those of many files of one folder as one."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._errors: list[PmrlError] = []

    def __enter__(self) -> Callable[[PmrlError], None]:
        return self._errors.append

    def __exit__(self, kind: object, *failure: object) -> None:
        if kind is not None:
            return
        alike: dict[tuple[str, str], list[PmrlError]] = {}
        for error in self._errors:
            folder = "" if error.at is None else str(Path(error.at.file).parent)
            alike.setdefault((error.what, folder), []).append(error)
        for group in alike.values():
            if len(group) <= _LISTED:
                for error in group:
                    self._report(error)
                continue
            first = group[0]
            places = [error.at for error in group if error.at is not None]
            self._report(
                type(first)(
                    first.what,
                    found=first.found,
                    expected=first.expected,
                    next_step=first.next_step,
                    at=places[0] if places else None,
                    others=places[1:],
                    total=len(group),
                )
            )


def _with_ids(found: Sequence[Found], options: ReadOptions, notes: list[str], report: Report) -> list[Found]:
    """Give files without ids those that lie beside them, and leave out the files that hold them."""
    if options.by_row:
        return list(found)
    beside: set[str] = set()
    joined: list[Found] = []
    for item, contents in found:
        try:
            more, note = with_ids_beside(item.path, contents, options.ids)
        except PmrlError as error:
            report(error)
            continue
        if note is not None:
            notes.append(note)
            beside.add(str(item.path.parent / more.columns[-1].name))
        joined.append((item, more))
    return [(item, contents) for item, contents in joined if str(item.path) not in beside]


def _has_floats(contents: Contents) -> bool:
    return any(v.dtype in FLOATS and not never_features(v.name or "") for v in contents.vectors)


def _choose_all(items: Sequence[Found], options: ReadOptions, notes: list[str], report: Report) -> list[ArrayOf]:
    holding = [contents for _, contents in items if _has_floats(contents)]
    # shards or splits of one set of files may each hold several modalities
    alone = len(set(modality_names([Path(contents.file) for contents in holding]))) == 1
    times = Counter(item.path for item, _ in items)
    flag = options.feature_column
    having = [file for file, contents in items if flag is not None and has_array(contents, flag)]
    arrays: list[ArrayOf] = []
    with _Together(report) as report_fault:
        for item, contents in items:
            try:
                wanted = item.dataset or (flag if not having or item in having else None)
                found = _choose_one(item, contents, wanted, notes, alone=alone, repeated=times[item.path] > 1)
                if item.name is None and item.dataset is None:
                    refuse_per_sample(contents, [array.vectors for array in found], options.id_column)
                arrays += found
            except PmrlError as error:
                report_fault(error)
    guessed = [index for index, array in enumerate(arrays) if array.name is None]
    paths = [Path(arrays[index].contents.file) for index in guessed]
    names = modality_names(paths, [arrays[index].vectors.dim for index in guessed])
    for index, name in zip(guessed, names, strict=True):
        arrays[index] = replace(arrays[index], name=name)
    return arrays


def _choose_one(
    item: Item, contents: Contents, wanted: str | None, notes: list[str], *, alone: bool, repeated: bool
) -> list[ArrayOf]:
    choice = choose_vectors(contents, wanted, flagged=item.dataset is None, alone=alone and item.name is None)
    if choice.note is not None:
        notes.append(f"{item.path.name}: {choice.note}")
    taken = choice.vectors
    names: list[str | None]
    if all(vectors.modality is not None for vectors in taken):
        if item.name is not None and len(taken) > 1:
            raise UsageError(
                what=f"a {contents_kind(item)} names its own modalities",
                at=Place(str(item.path)),
                found=f"the name {item.name!r}",
                expected="the path alone",
                next_step=f"Type {item.path}.",
            )
        names = [item.name or vectors.modality or None for vectors in taken]
    elif len(taken) > 1:
        names = list(array_names([vectors.name or "" for vectors in taken]))
    elif repeated and item.name is None:
        names = list(array_names([taken[0].name or ""]))
    else:
        names = [item.name]
    return [
        ArrayOf(contents, vectors, name, guessed=item.name is None)
        for vectors, name in zip(taken, names, strict=True)
    ]


def contents_kind(item: Item) -> str:
    """Return what kind of file or folder an item is, as people call it."""
    from pmrl_cli.files.formats import registry

    found = item.form or registry.find(item.path)
    return "file" if found is None else found.title
