"""Tables of Arrow columns, whatever they are read from: which columns are vectors, ids or scalars.

A vector is a column of lists, of tensors or of text such as ``[0.1, 0.2]``, or a run of numeric columns ``0..n``,
``f0..``, ``dim_0..``. A frame of pandas names its index in the schema: unless that counts the rows, it is the ids.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pmrl_cli.data.validate import SHOWN
from pmrl_cli.errors import DataError, Place
from pmrl_cli.files.formats.contents import (
    MAX_DIM,
    Block,
    Column,
    Contents,
    ProbeOptions,
    Vectors,
    reading,
    refuse_bomb,
    rows_per_block,
    text_column,
)
from pmrl_cli.files.formats.names import ID_NAMES
from pmrl_cli.files.formats.table_rows import Convert, Lists, Nested, Stacked, Tensors, Texts, numbers, storage_array
from pmrl_cli.files.formats.table_schema import (
    LEVELS,
    RUN,
    dtype_of,
    innermost,
    is_list,
    is_nameable,
    is_number,
    is_text,
    numbered_columns,
    pandas_index,
)

__all__ = ["Opened", "Table", "contents_of", "from_batches", "in_turn"]

_LOOKED_AT = 64
"""Rows by which the type of a column of lists or of text is decided; reading checks the others against it."""

_TEXT_VECTOR = re.compile(r"\s*[\[({]\s*[-+.\dnN]")


class Table(Protocol):
    """An open table."""

    schema: pa.Schema
    rows: int

    def batches(self, names: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Yield some columns in order, at most so many rows at a time."""
        ...


Opened = Callable[[], AbstractContextManager[Table]]


def contents_of(path: Path, opened: Opened, options: ProbeOptions, size: int, splits: Sequence[str] = ()) -> Contents:
    """Return what a table holds.

    Args:
        path: as the user typed it.
        opened: opens the table.
        options: as for ``probe``.
        size: bytes stored, which what is declared is compared with.
        splits: of each row, the split of the data set it belongs to, where the format has one.

    Raises: DataError if it cannot be read; PolicyError if it declares far more than is stored.
    """
    with reading(str(path)), opened() as table:
        look = _Look(path, opened, table, options)
        for name in table.schema.names:
            look.at(name)
        look.at_runs()
        rows = table.rows
    for v in look.vectors:
        refuse_bomb(Place(str(path), v.name), v.rows * v.dim * np.dtype(v.dtype).itemsize, size)
    refuse_bomb(Place(str(path)), rows, size)
    sides = (text_column("split", splits),) if splits else ()
    return Contents(
        str(path),
        tuple(look.vectors),
        (*look.columns, *look.levels(), *sides),
        tuple(look.others),
        tuple(look.notes),
        ("split",) if splits else (),
        tuple(look.unpooled),
    )


class _Look:
    """Sorts the columns of an open table."""

    def __init__(self, path: Path, opened: Opened, table: Table, options: ProbeOptions) -> None:
        self.path, self.opened, self.table, self.options = path, opened, table, options
        self.vectors: list[Vectors] = []
        self.columns: list[Column] = []
        self.others: list[str] = []
        self.unpooled: list[str] = []
        self.notes: list[str] = []
        self.ids, self.index = pandas_index(table.schema)
        self.runs = numbered_columns(table.schema, options.columns)
        self._in_runs = {name for names in self.runs.values() for name in names}

    def at(self, name: str) -> None:
        """Sort one column."""
        kind = self.table.schema.field(name).type
        if name in self._in_runs:
            return
        storage = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
        if isinstance(kind, pa.FixedShapeTensorType) and is_number(kind.value_type):
            self._tensors(name, kind)
        elif is_list(storage) and is_number(innermost(storage)):
            self._lists(name, storage)
        elif pa.types.is_struct(storage):
            self._fields(name, storage)
        elif pa.types.is_nested(storage):
            self.others.append(f"{name} ({kind})")
            if name in ID_NAMES:
                self.columns.append(
                    Column(name, self.table.rows, nameable=False, load=lambda *, text=False: pa.nulls(0))
                )
        elif not (is_text(storage) and self._texts(name)):
            self.columns.append(self._column(name, kind))

    def _fields(self, name: str, storage: pa.DataType) -> None:
        """Take the text and the numbers in a column of structs as columns of their own, ``name.field``."""
        self.others.append(f"{name} ({storage})")
        for number in range(storage.num_fields):
            field = storage.field(number)
            if pa.types.is_nested(field.type):
                continue
            self.columns.append(self._column(name, field.type, field.name))
        if name in ID_NAMES:
            self.columns.append(Column(name, self.table.rows, nameable=False, load=lambda *, text=False: pa.nulls(0)))

    def _tensors(self, name: str, kind: pa.FixedShapeTensorType) -> None:
        inner = [size for size in kind.shape if size != 1] or [1]
        if len(inner) > 2 or (len(inner) == 2 and self.options.pool is None):
            self._several(name, f"{tuple(kind.shape)}", poolable=len(inner) == 2)
            return
        length, dim = (inner[0], inner[1]) if len(inner) == 2 else (1, inner[0])
        self._add(name, [name], dim, dtype_of(kind.value_type), Tensors(length, dim, self.options.pool))

    def _lists(self, name: str, storage: pa.DataType) -> None:
        nested = is_list(storage.value_type)
        if nested and is_list(storage.value_type.value_type):
            self.others.append(f"{name} ({storage})")
            return
        first = _first_rows(self.table, name)
        if nested:
            lengths = set(first.value_lengths().to_pylist())
            flat = first.flatten()
            dims = flat.drop_null().value_lengths() if len(flat) else pa.array([], pa.int32())
            if lengths - {1} and self.options.pool is None:
                shown = f"{min(lengths)}" if len(lengths) == 1 else f"{min(lengths)} to {max(lengths)}"
                self._several(name, f"{shown} x {dims[0] if len(dims) else 0}", poolable=True)
                return
        else:
            dims = first.value_lengths()
        dim = int(storage.list_size) if pa.types.is_fixed_size_list(storage) and not nested else 0
        dim = dim or (int(dims[0].as_py()) if len(dims) else 0)
        if not 0 < dim <= MAX_DIM:
            self.others.append(f"{name} ({storage})")
            return
        convert = Nested(dim, self.options.pool) if nested else Lists(dim)
        self._add(name, [name], dim, dtype_of(innermost(storage)), convert)

    def _texts(self, name: str) -> bool:
        first = _first_rows(self.table, name)
        texts = [text for text in first.to_pylist() if text is not None]
        values = [numbers(text) for text in texts]
        bare = not all(_TEXT_VECTOR.match(text) for text in texts)
        if not values or None in values or len(values[0] or []) < (RUN if bare else 2):
            return False
        self._add(name, [name], len(values[0] or []), "float64", Texts(len(values[0] or [])))
        self.notes.append(f"{self.path.name}: the column {name} holds vectors as text, which are slow to read.")
        return True

    def at_runs(self) -> None:
        """Take the runs of numeric columns."""
        for shown, names in self.runs.items():
            kinds = [np.dtype(dtype_of(self.table.schema.field(name).type)) for name in names]
            dtype = str(np.result_type(*kinds))
            self._add(shown, names, len(names), dtype, Stacked(dtype))
        floats = [one.name for one in self.table.schema if pa.types.is_floating(one.type)]
        if not self.vectors and not self.unpooled and len(floats) >= RUN and len(floats) > len(self.columns) * 0.8:
            self.others.append(f"{len(floats)} numeric columns, one vector if named with --feature-column '*'")
        if any(one.name == self.index for one in self.columns):
            self.columns = [
                Column(one.name, one.rows, one.nameable, one.load, one.name == self.index) for one in self.columns
            ]

    def levels(self) -> list[Column]:
        """Return the index of a frame with several levels as one column: their texts with ``|`` between."""
        names = (self.ids or "").split(LEVELS)
        if len(names) < 2 or not all(name in self.table.schema.names for name in names):
            return []
        each = [self._column(name, self.table.schema.field(name).type) for name in names]

        def load(*, text: bool = False) -> pa.Array:
            parts = [one.load(text=True).cast(pa.large_string()) for one in each]
            return pc.binary_join_element_wise(*parts, pa.scalar("|", pa.large_string()))

        return [Column(self.ids or "", self.table.rows, nameable=True, load=load)]

    def _several(self, name: str, shape: str, *, poolable: bool) -> None:
        phrase = f"{name} ({self.table.rows} x {shape})"
        (self.unpooled if poolable else self.others).append(phrase)

    def _add(self, shown: str, names: list[str], dim: int, dtype: str, convert: Convert) -> None:
        rows, path, opened = self.table.rows, self.path, self.opened
        step = rows_per_block(dim, np.dtype(dtype).itemsize)

        def blocks() -> Iterator[Block]:
            with reading(str(path), shown), opened() as table:
                start = 0
                for batch in table.batches(names, step):
                    block = convert(batch)
                    if isinstance(block, dict):
                        raise _ragged(path, shown, {start + row: was for row, was in block.items()}, dim)
                    start += len(batch)
                    yield block

        ids = self.ids if self.ids in (*self.table.schema.names, *(one.name for one in self.levels())) else None
        self.vectors.append(Vectors(str(path), shown, rows, dim, dtype, blocks, ids))

    def _column(self, name: str, kind: pa.DataType, field: str | None = None) -> Column:
        path, opened = self.path, self.opened
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind

        def load(*, text: bool = False) -> pa.Array:
            with reading(str(path), name), opened() as table:
                column = getattr(table, "column", None)
                if column is not None and text:
                    return column(name)
                chunks = [batch.column(0) for batch in table.batches([name], 2**18)]
                if field is not None:
                    chunks = [pc.struct_field(chunk, field) for chunk in chunks]
                return _one_array(chunks, kind)

        return Column(name if field is None else f"{name}.{field}", self.table.rows, is_nameable(kind), load)


def _first_rows(table: Table, name: str) -> pa.Array:
    """Return the first values of a column that are there."""
    for batch in table.batches([name], _LOOKED_AT):
        values = storage_array(batch.column(0)).drop_null()
        if len(values):
            return values[:_LOOKED_AT]
    return storage_array(pa.array([], table.schema.field(name).type))


def _ragged(path: Path, name: str, wrong: dict[int, str], dim: int) -> DataError:
    """Return the error that names the rows of another length, those of one batch."""
    places = [Place(str(path), name, row) for row in list(wrong)[:SHOWN]]
    return DataError(
        what="vectors differ in length",
        at=places[0],
        others=places[1:],
        total=len(wrong),
        found=next(iter(wrong.values())),
        expected=f"{dim} as in the first row",
        next_step="Write rows of one length.",
    )


def _one_array(chunks: Sequence[pa.Array], kind: pa.DataType) -> pa.Array:
    """Return one array with 64-bit offsets, so that any amount of text fits; identifiers as their canonical text."""
    if isinstance(kind, pa.BaseExtensionType):
        chunks, kind = [storage_array(chunk) for chunk in chunks], kind.storage_type
    if pa.types.is_fixed_size_binary(kind) and kind.byte_width == 16:
        return _identifiers(chunks, kind)
    if pa.types.is_string(kind) or pa.types.is_string_view(kind):
        kind = pa.large_string()
    elif pa.types.is_binary(kind) or pa.types.is_binary_view(kind):
        kind = pa.large_binary()
    return pa.concat_arrays([chunk.cast(kind) for chunk in chunks]) if chunks else pa.array([], kind)


def _identifiers(chunks: Sequence[pa.Array], kind: pa.DataType) -> pa.Array:
    """Return 16 bytes a row as text if they are, else as the identifiers (UUID) that they are."""
    values = pa.concat_arrays(list(chunks)) if chunks else pa.array([], kind)
    try:
        return values.cast(pa.large_binary()).cast(pa.large_string())
    except pa.ArrowInvalid:
        texts = [None if one is None else str(uuid.UUID(bytes=one)) for one in values.to_pylist()]
        return pa.array(texts, pa.large_string())


class _InTurn:
    def __init__(self, tables: Sequence[Any], schema: pa.Schema) -> None:
        self.tables, self.schema, self.rows = tables, schema, sum(one.rows for one in tables)

    def batches(self, names: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Yield those of each table."""
        for table in self.tables:
            yield from table.batches(names, rows)


def in_turn(tables: Sequence[Table]) -> Table:
    """Return tables of one schema, one after the other, as one."""
    return _InTurn(tables, tables[0].schema)


def from_batches(batch: pa.RecordBatch, rows: int) -> Iterator[pa.RecordBatch]:
    """Yield a batch in slices of at most so many rows."""
    for start in range(0, len(batch), rows):
        yield batch.slice(start, rows)
