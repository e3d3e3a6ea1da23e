"""Side tables: labels, groups or a split by id."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from pmrl_cli.data.validate import check_unique, text_ids
from pmrl_cli.errors import DataError, Place, PmrlError
from pmrl_cli.files.join.choosing import id_columns
from pmrl_cli.files.join.specs import Report, probe

__all__ = ["SideTable", "plain", "read_side_table", "side_tables"]


@dataclass(frozen=True)
class SideTable:
    """Labels, groups or a split by id."""

    file: str
    ids: pa.LargeStringArray
    columns: Mapping[str, pa.Array]


def read_side_table(file: Path, id_column: Sequence[str] = ()) -> SideTable:
    """Read a table of labels, groups or a split.

    Args:
        file: Parquet, HDF5, CSV or a STORE.
        id_column: names of the column of its ids, none (or ones it lacks) to go by the names.

    Raises: DataError if it has no ids, or ids that are bad or name two rows.
    """
    contents = probe(file)
    found = id_columns(contents, None, id_column)
    # a name given for the feature files need not be that of the side table
    found = found or id_columns(contents, None, ())
    if not found:
        raise DataError(
            what="side table without ids",
            at=Place(contents.file),
            found=", ".join(column.name for column in contents.columns[:8]) or "no column",
            expected="a column of ids",
            next_step="Name it with --id-column.",
        )
    named = next(iter(found.values()))
    ids = text_ids(named.load(text=True), file=contents.file, dataset=named.name)
    check_unique(ids, [(contents.file, named.name, len(ids))])
    columns = {
        column.name.lstrip("/"): plain(column.load(), Place(contents.file, column.name))
        for column in contents.columns
        if column.name != named.name and column.rows == len(ids)
    }
    return SideTable(contents.file, ids, columns)


def side_tables(files: Iterable[Path], id_column: Sequence[str], report: Report) -> tuple[SideTable, ...]:
    """Read side tables whose columns do not clash.

    Args:
        files: the tables.
        id_column: as for ``read_side_table``.
        report: takes the error of each table that cannot be used.
    """
    tables: list[SideTable] = []
    for file in files:
        try:
            table = read_side_table(file, id_column)
            known = {name for other in tables for name in other.columns}
            if twice := sorted(known & set(table.columns)):
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
