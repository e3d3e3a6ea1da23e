"""Parquet feature files and side tables, and CSV side tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from pmrl_cli.data.validate import SHOWN
from pmrl_cli.errors import DataError, Place
from pmrl_cli.files.formats.contents import (
    MAX_DIM,
    Block,
    Column,
    Contents,
    Vectors,
    reading,
    refuse_bomb,
    rows_per_block,
)

__all__ = ["probe_csv", "probe_parquet"]

_RUN = 8
"""Numbered numeric columns that together are one vector."""


def probe_parquet(path: Path) -> Contents:
    """Return what a Parquet file holds: vector columns, runs of numbered numeric columns, scalar columns.

    Raises: DataError if it cannot be read.
    """
    vectors: list[Vectors] = []
    columns: list[Column] = []
    others: list[str] = []
    with reading(str(path)), _opened(path) as file:
        schema = file.schema_arrow
        rows = int(file.metadata.num_rows)
        size = path.stat().st_size
        refuse_bomb(Place(str(path)), rows, size)
        runs = _runs(schema)
        in_runs = {name for names in runs for name in names}
        for field in schema:
            kind = field.type
            dim = _dim(file, field)
            if 0 < dim <= MAX_DIM:
                value = (kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind).value_type
                vectors.append(_vectors(path, [field.name], field.name, rows, dim, _numpy_name(value)))
            elif field.name in in_runs:
                continue
            elif pa.types.is_nested(kind) or isinstance(kind, pa.BaseExtensionType):
                others.append(f"{field.name} ({kind})")
            else:
                columns.append(_column(path, field, rows))
        for names in runs:
            dtype = _numpy_name(schema.field(names[0]).type)
            vectors.append(_vectors(path, names, f"{names[0]}..{names[-1]}", rows, len(names), dtype))
    for v in vectors:
        refuse_bomb(Place(str(path), v.name), v.rows * v.dim * np.dtype(v.dtype).itemsize, size)
    return Contents(str(path), tuple(vectors), tuple(columns), tuple(others))


def _opened(path: Path) -> pq.ParquetFile:
    """Open a file; pages that carry a checksum are held to it."""
    return pq.ParquetFile(path, page_checksum_verification=True)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _numpy_name(kind: pa.DataType) -> str:
    return str(np.dtype(kind.to_pandas_dtype()).name)


def _dim(file: pq.ParquetFile, field: pa.Field) -> int:
    """Return the length of a column's vectors, 0 if it holds none.

    A plain list column does not declare it: its first list tells, and reading holds the others to it.
    """
    kind = field.type
    if isinstance(kind, pa.FixedShapeTensorType):
        return int(kind.shape[0]) if len(kind.shape) == 1 and _is_number(kind.value_type) else 0
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        return 0
    if not _is_number(kind.value_type):
        return 0
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size)
    for batch in file.iter_batches(64, columns=[field.name]):
        lengths = batch.column(0).drop_null().value_lengths()
        if len(lengths):
            return int(lengths[0].as_py())
    return 0


def _runs(schema: pa.Schema) -> list[list[str]]:
    """Return the runs of ``_RUN`` or more columns ``0..n``, ``f0..``, ``dim_0..`` of one numeric type."""
    groups: dict[tuple[str, str], dict[int, str]] = {}
    for field in schema:
        match = re.fullmatch(r"(.*?)(\d+)", field.name)
        if match and _is_number(field.type):
            groups.setdefault((match[1], str(field.type)), {})[int(match[2])] = field.name
    runs = []
    for numbered in groups.values():
        numbers = sorted(numbered)
        if len(numbers) >= _RUN and numbers[0] in (0, 1) and numbers[-1] - numbers[0] == len(numbers) - 1:
            runs.append([numbered[number] for number in numbers])
    return runs


def _vectors(path: Path, names: list[str], shown: str, rows: int, dim: int, dtype: str) -> Vectors:
    step = rows_per_block(dim, np.dtype(dtype).itemsize)

    def blocks() -> Iterator[Block]:
        with reading(str(path), shown), _opened(path) as file:
            for batch in file.iter_batches(step, columns=names):
                if len(names) == 1:
                    block = _from_lists(batch.column(0), dim, dtype)
                    if block is None:
                        raise _ragged(path, shown, file, dim)
                    yield block
                else:
                    table = [batch.column(name).to_numpy(zero_copy_only=False) for name in names]
                    yield np.stack(table, axis=1), None

    return Vectors(str(path), shown, rows, dim, dtype, blocks)


def _from_lists(values: pa.Array, dim: int, dtype: str) -> Block | None:
    """Return lists as rows, None if they are not all of one length."""
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    null = values.is_null().to_numpy(zero_copy_only=False) if values.null_count else None
    whole = values if null is None else values.drop_null()
    if (whole.value_lengths().to_numpy() != dim).any():
        return None
    flat = whole.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)
    if null is None:
        return flat, None
    block = np.zeros((len(values), dim), dtype=dtype)
    block[~null] = flat
    return block, null


def _ragged(path: Path, name: str, file: pq.ParquetFile, dim: int) -> DataError:
    """Return the error that names the rows of another length."""
    rows: list[tuple[int, int]] = []
    start = 0
    for batch in file.iter_batches(columns=[name]):
        lengths = batch.column(0).value_lengths().fill_null(dim).to_numpy()
        rows += [(start + int(at), int(lengths[at])) for at in np.flatnonzero(lengths != dim)]
        start += len(batch)
    places = [Place(str(path), name, row) for row, _ in rows[:SHOWN]]
    return DataError(
        what="vectors differ in length",
        at=places[0],
        others=places[1:],
        total=len(rows),
        found=f"{rows[0][1]} values",
        expected=f"{dim} as in the first row",
        next_step="Write rows of one length.",
    )


def _column(path: Path, field: pa.Field, rows: int) -> Column:
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type

    def load(*, text: bool = False) -> pa.Array:
        with reading(str(path), field.name), _opened(path) as file:
            return _one_array(file.read(columns=[field.name]).column(field.name), kind)

    return Column(field.name, rows, _nameable(kind), load)


def _one_array(chunks: pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
    """Return one array with 64-bit offsets, so that any amount of text fits."""
    if pa.types.is_string(kind):
        kind = pa.large_string()
    elif pa.types.is_binary(kind):
        kind = pa.large_binary()
    return pa.concat_arrays(chunks.cast(kind).chunks) if chunks.num_chunks else pa.array([], kind)


def _nameable(kind: pa.DataType) -> bool:
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)
    return bool(text or binary or pa.types.is_integer(kind))


def probe_csv(path: Path) -> Contents:
    """Return the columns of a CSV or TSV side table; its vectors, if any, are not read.

    Raises: DataError if it cannot be read.
    """
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    parse = pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)

    def table(convert: pa.csv.ConvertOptions | None = None) -> pa.Table:
        with reading(str(path)):
            return pa.csv.read_csv(path, parse_options=parse, convert_options=convert)

    def column(name: str, rows: int, kind: pa.DataType) -> Column:
        def load(*, text: bool = False) -> pa.Array:
            types = {name: pa.string()} if text else None
            convert = pa.csv.ConvertOptions(column_types=types, include_columns=[name], strings_can_be_null=not text)
            chunks = table(convert).column(name)
            return _one_array(chunks, chunks.type)

        return Column(name, rows, _nameable(kind), load)

    whole = table()
    return Contents(str(path), columns=tuple(column(field.name, len(whole), field.type) for field in whole.schema))
