"""Side tables: labels, groups or a split by id."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from pmrl_cli.data.join import rows_of
from pmrl_cli.data.read_options import ReadOptions
from pmrl_cli.data.validate import check_unique, text_ids
from pmrl_cli.errors import DataError, Place, PmrlError
from pmrl_cli.files.formats import registry
from pmrl_cli.files.formats.contents import Column, Contents
from pmrl_cli.files.formats.layout import chained_columns
from pmrl_cli.files.formats.names import base_name, natural_key
from pmrl_cli.files.formats.probe import probe
from pmrl_cli.files.join.choosing import id_columns
from pmrl_cli.files.join.patterns import pattern_for, taken
from pmrl_cli.files.join.specs import Report

if TYPE_CHECKING:
    from pmrl_cli.files.join.modalities import Modality

__all__ = ["SideTable", "column_names", "own_tables", "plain", "read_side_table", "side_tables"]


@dataclass(frozen=True)
class SideTable:
    """Labels, groups or a split by id."""

    file: str
    ids: pa.LargeStringArray
    columns: Mapping[str, pa.Array]


def read_side_table(
    file: Path,
    id_column: Sequence[str] = (),
    reference: pa.LargeStringArray | None = None,
    id_pattern: Sequence[str] = (),
) -> SideTable:
    """Read a table of labels, groups or a split.

    Args:
        file: Parquet, HDF5, CSV or a STORE, a folder of Parquet files, or one of these with ``#column`` behind it,
            which takes that column alone.
        id_column: names of the column of its ids, none (or ones it lacks) to go by the names.
        reference: ids of the instances: where no column is named as ids, the one that holds most of them is.
        id_pattern: as in ``ReadOptions``; ids that it does not fit stay as they are.

    Raises: DataError if it has no ids, or ids that are bad or name two rows.
    """
    path, only = _path_and_column(file)
    contents = _contents(path)
    found = id_columns(contents, None, id_column)
    # a name given for the feature files need not be that of the side table
    found = found or id_columns(contents, None, ())
    named = next(iter(found.values()), None)
    if named is None:
        named = next((one for one in contents.columns for v in contents.vectors if one.name == v.ids), None)
    if named is None and reference is not None:
        named = _by_values(contents, reference)
    if named is None:
        raise DataError(
            what="side table without ids",
            at=Place(contents.file),
            found=", ".join(column.name for column in contents.columns[:8]) or "no column",
            expected="a column of ids",
            next_step="Name it with --id-column.",
        )
    ids = text_ids(named.load(text=True), file=contents.file, dataset=named.name)
    if (pattern := pattern_for(id_pattern, None)) is not None:
        ids = taken(ids, pattern, Place(contents.file, named.name), partly=True)
    check_unique(ids, [(contents.file, named.name, len(ids))])
    columns = _plain_columns(contents, named, len(ids))
    if only is not None:
        if only not in columns:
            raise DataError(
                what="no such side column",
                at=Place(contents.file, only),
                found=", ".join(list(columns)[:8]) or "no column",
                expected=f"a column {only!r}",
                next_step=f"Name one of them, as in --labels {path}#{next(iter(columns), 'label')}.",
            )
        columns = {only: columns[only]}
    return SideTable(contents.file, ids, columns)


def _path_and_column(file: Path) -> tuple[Path, str | None]:
    """Return the path of ``FILE#column`` and the column, None for the path alone."""
    if file.exists() or "#" not in file.name:
        return file, None
    name, _, column = file.name.rpartition("#")
    return file.parent / name, column


def column_names(file: Path) -> list[str]:
    """Return what the columns of a side table are called.

    Args:
        file: as for ``read_side_table``.
    """
    return [base_name(one.name) for one in _contents(_path_and_column(file)[0]).columns]


def _plain_columns(contents: Contents, named: Column | None, rows: int) -> dict[str, pa.Array]:
    return {
        column.name.lstrip("/"): plain(column.load(), Place(contents.file, column.name))
        for column in contents.columns
        if (named is None or column.name != named.name) and column.rows == rows
    }


def _contents(path: Path) -> Contents:
    if not path.is_dir() or registry.find(path) is not None:
        return probe(path)
    files = sorted((one for one in path.glob("*.parquet")), key=lambda one: natural_key(one.name))
    parts = [probe(one) for one in files]
    if not parts:
        raise DataError(
            what="folder holds no side table",
            at=Place(str(path)),
            found="no Parquet file directly in it",
            expected="a table, or a folder of Parquet files",
            next_step="Name the table itself.",
        )
    columns = []
    for column in parts[0].columns:
        same = [one for part in parts for one in part.columns if one.name == column.name]
        if len(same) == len(parts):
            columns.append(chained_columns(column.name, same))
    return Contents(str(path), columns=tuple(columns))


def _by_values(contents: Contents, reference: pa.LargeStringArray) -> Column | None:
    """Return the column that holds most ids of the instances, if it holds half of its values or of them."""
    best: tuple[int, Column] | None = None
    for column in contents.columns:
        if not column.nameable or not column.rows:
            continue
        try:
            values = column.load(text=True).cast(pa.large_string())
        except (PmrlError, pa.ArrowException):
            continue
        matched = int((rows_of(reference, values) >= 0).sum())
        if 2 * matched >= min(len(values), len(reference)) and (best is None or matched > best[0]):
            best = matched, column
    return None if best is None else best[1]


def own_tables(modalities: Sequence[Modality], notes: list[str], report: Report) -> tuple[SideTable, ...]:
    """Return the side tables in the files of the features: annotations, and the split.

    A name that two files have is taken of the first.
    """
    tables: list[SideTable] = []
    known: set[str] = set()
    for modality in modalities:
        start = 0
        for shard, contents in zip(modality.shards, modality.contents, strict=True):
            ids = modality.ids[start : start + shard.rows]
            start += shard.rows
            fresh = [one for one in contents.columns if one.name in contents.side and one.rows == shard.rows]
            fresh = [one for one in fresh if one.name.lstrip("/") not in known and one.name != modality.id_name]
            if not fresh:
                continue
            try:
                columns = {one.name.lstrip("/"): plain(one.load(), Place(contents.file, one.name)) for one in fresh}
            except PmrlError as error:
                report(error)
                continue
            tables.append(SideTable(contents.file, ids, columns))
        known |= {name for table in tables for name in table.columns}
        if modality.splits and "split" not in known:
            words = [
                word for word, shard in zip(modality.splits, modality.shards, strict=True) for _ in range(shard.rows)
            ]
            column = pa.array(words, pa.large_string())
            tables.append(SideTable(modality.shards[0].file, modality.ids, {"split": column}))
            known.add("split")
            notes.append(
                f"side column 'split' by the names of the files: {', '.join(dict.fromkeys(modality.splits))}."
            )
    return _merged(tables)


def _merged(tables: Sequence[SideTable]) -> tuple[SideTable, ...]:
    """Put the tables of shards, which have the same columns, together."""
    merged: list[SideTable] = []
    for table in tables:
        same = next((at for at, other in enumerate(merged) if set(other.columns) == set(table.columns)), None)
        if same is None:
            merged.append(table)
            continue
        first = merged[same]
        columns = {name: _concat(first.columns[name], table.columns[name]) for name in first.columns}
        merged[same] = SideTable(first.file, pa.concat_arrays([first.ids, table.ids]), columns)
    return tuple(merged)


def _concat(one: pa.Array, other: pa.Array) -> pa.Array:
    if one.type != other.type:
        one, other = one.cast(pa.large_string()), other.cast(pa.large_string())
    return pa.concat_arrays([one, other])


def side_tables(
    files: Iterable[Path],
    options: ReadOptions,
    reference: pa.LargeStringArray | None,
    known: Sequence[SideTable],
    report: Report,
) -> tuple[SideTable, ...]:
    """Read side tables whose columns do not clash: those among FILES, then that of ``labels``.

    Args:
        files: the tables among FILES.
        options: with the table of ``labels``.
        reference: as for ``read_side_table``.
        known: tables read already, which those of ``labels`` take precedence over by name in the end.
        report: takes the error of each table that cannot be used.
    """
    given = {file.resolve(): file for file in files}
    if options.labels is not None:
        given[options.labels.resolve()] = options.labels
    tables: list[SideTable] = []
    for file in given.values():
        try:
            table = read_side_table(file, options.id_column, reference, options.id_pattern)
            if (same := _same(tables, table)) is not None:
                tables[same] = _with_more(tables[same], table)
                continue
            names = {name for other in tables for name in other.columns}
            if twice := sorted(names & set(table.columns)):
                raise DataError(
                    what="side column twice",
                    at=Place(table.file, twice[0]),
                    found="a column of that name in another side table",
                    expected="each name once",
                    next_step="Rename one of them.",
                )
            tables.append(table)
        except PmrlError as error:
            report(error)
    return tuple(tables)


def _same(tables: Sequence[SideTable], table: SideTable) -> int | None:
    """Return which table has the same columns as another, and the same values in the rows of both; None if none."""
    for at, one in enumerate(tables):
        shared = rows_of(one.ids, table.ids)
        mask, rows = pa.array(shared >= 0), pa.array(shared[shared >= 0])
        if set(one.columns) == set(table.columns) and all(
            one.columns[name].take(rows).equals(values.filter(mask)) for name, values in table.columns.items()
        ):
            return at
    return None


def _with_more(table: SideTable, more: SideTable) -> SideTable:
    """Return a table with the rows of another of the same columns that it has not yet."""
    mask = pa.array(rows_of(table.ids, more.ids) < 0)
    columns = {name: _concat(values, more.columns[name].filter(mask)) for name, values in table.columns.items()}
    return SideTable(table.file, pa.concat_arrays([table.ids, more.ids.filter(mask)]), columns)


def plain(values: pa.Array, place: Place) -> pa.Array:
    """Return numbers and truth values as they are, everything else as text.

    Raises: DataError for values that are no UTF-8 text, or that Arrow cannot write as text.
    """
    kind = values.type
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind):
        return values
    try:
        if pa.types.is_fixed_size_binary(kind) or pa.types.is_binary_view(kind):
            values = values.cast(pa.large_binary())
        # What a file calls text need not be: only the way back from bytes looks at each.
        text = values if pa.types.is_large_binary(values.type) else values.cast(pa.large_string())
        return text.cast(pa.large_binary()).cast(pa.large_string())
    except pa.ArrowException as error:
        raise DataError(
            what="side column cannot be read as text",
            at=place,
            found=str(error).splitlines()[0][:120],
            expected="UTF-8 text, numbers or truth values",
            next_step="Write the column again, or leave it out.",
        ) from None
