"""CSV and TSV: a table that is read whole."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from pmrl_cli.files.formats.contents import Contents, ProbeOptions
from pmrl_cli.files.formats.tables import Table, contents_of, from_batches

__all__ = ["probe"]

_DELIMITERS = (",", ";", "\t", "|")
_LINE_BYTES = 2**24
"""A first line is read no further than this."""


def probe(path: Path, options: ProbeOptions) -> Contents:
    """Return what a CSV or TSV file holds; a first column without a name is the index of a data frame.

    Without a line of names, columns are called ``f0``, ``f1`` and so on, and the one of text ``id``.

    Raises: DataError if it cannot be read.
    """
    return contents_of(path, lambda: _opened(path), options, path.stat().st_size)


class _Text:
    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open(encoding="utf-8", errors="replace") as file:
            first = file.readline(_LINE_BYTES)
        self._delimiter = "\t" if path.suffix.lower() == ".tsv" else max(_DELIMITERS, key=first.count)
        self._header = [name.strip().strip('"') for name in first.split(self._delimiter)]
        self._names = _names_of_row(self._header)
        whole = self._read(pa.csv.ConvertOptions(strings_can_be_null=True))
        names = [name or "__index_level_0__" for name in whole.column_names]
        self._whole = whole.rename_columns(names) if "" in whole.column_names else whole
        about = b'{"index_columns": ["__index_level_0__"], "columns": []}'
        unnamed = "__index_level_0__" in names
        self.schema: pa.Schema = self._whole.schema.with_metadata({b"pandas": about} if unnamed else None)
        self.rows = len(whole)

    def _read(self, convert: pa.csv.ConvertOptions) -> pa.Table:
        parse = pa.csv.ParseOptions(delimiter=self._delimiter, newlines_in_values=True)
        named = pa.csv.ReadOptions(column_names=self._names)
        return pa.csv.read_csv(self._path, parse_options=parse, convert_options=convert, read_options=named)

    def batches(self, names: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Yield some columns in order."""
        for batch in self._whole.select(list(names)).to_batches(max_chunksize=rows):
            yield from from_batches(batch, rows)

    def column(self, name: str) -> pa.Array:
        """Return a column as the text it is written in: leading zeros stay, nothing is null."""
        written = "" if name == "__index_level_0__" and name not in self._header else name
        types = {written: pa.large_string()}
        convert = pa.csv.ConvertOptions(column_types=types, include_columns=[written], strings_can_be_null=False)
        chunks = self._read(convert).column(0)
        return pa.concat_arrays(chunks.chunks) if chunks.num_chunks else pa.array([], pa.large_string())


def _names_of_row(first: Sequence[str]) -> list[str] | None:
    """Return names for columns whose first line holds values and no names, None if it holds names.

    It does where most of it are numbers with decimals; a single text among them is the id.
    """
    decimals = [bool(re.fullmatch(r"[-+]?\d*\.\d+([eE][-+]?\d+)?", one)) for one in first]
    if sum(decimals) < 2 or sum(decimals) <= len(first) // 2:
        return None
    numbers = [bool(re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|nan|NaN|", one)) for one in first]
    texts = [at for at, number in enumerate(numbers) if not number]
    ids = texts[0] if len(texts) == 1 else 0 if not texts and not decimals[0] else None
    counted = iter(range(len(first)))
    return ["id" if at == ids else f"f{next(counted)}" if numbers[at] else f"text{at}" for at in range(len(first))]


@contextmanager
def _opened(path: Path) -> Iterator[Table]:
    yield _Text(path)
