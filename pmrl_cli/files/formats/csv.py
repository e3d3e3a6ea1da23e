"""CSV and TSV: a table that is read whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from pmrl_cli.files.formats.contents import Contents, ProbeOptions
from pmrl_cli.files.formats.tables import Table, contents_of, from_batches

__all__ = ["probe"]


def probe(path: Path, options: ProbeOptions) -> Contents:
    """Return what a CSV or TSV file holds; a first column without a name is the index of a data frame.

    Raises: DataError if it cannot be read.
    """
    return contents_of(path, lambda: _opened(path), options, path.stat().st_size)


class _Text:
    def __init__(self, path: Path) -> None:
        self._path = path
        whole = self._read(pa.csv.ConvertOptions(strings_can_be_null=True))
        names = [name or "__index_level_0__" for name in whole.column_names]
        self._whole = whole.rename_columns(names) if "" in whole.column_names else whole
        about = b'{"index_columns": ["__index_level_0__"], "columns": []}'
        unnamed = "__index_level_0__" in names
        self.schema: pa.Schema = self._whole.schema.with_metadata({b"pandas": about} if unnamed else None)
        self.rows = len(whole)

    def _read(self, convert: pa.csv.ConvertOptions) -> pa.Table:
        delimiter = "\t" if self._path.suffix.lower() == ".tsv" else ","
        parse = pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
        return pa.csv.read_csv(self._path, parse_options=parse, convert_options=convert)

    def batches(self, names: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Yield some columns in order."""
        for batch in self._whole.select(list(names)).to_batches(max_chunksize=rows):
            yield from from_batches(batch, rows)

    def column(self, name: str) -> pa.Array:
        """Return a column as the text it is written in: leading zeros stay, nothing is null."""
        written = "" if name == "__index_level_0__" and name not in self._read_names() else name
        types = {written: pa.large_string()}
        convert = pa.csv.ConvertOptions(column_types=types, include_columns=[written], strings_can_be_null=False)
        chunks = self._read(convert).column(0)
        return pa.concat_arrays(chunks.chunks) if chunks.num_chunks else pa.array([], pa.large_string())

    def _read_names(self) -> list[str]:
        delimiter = "\t" if self._path.suffix.lower() == ".tsv" else ","
        with self._path.open(encoding="utf-8", errors="replace") as file:
            return [name.strip().strip('"') for name in file.readline().split(delimiter)]


@contextmanager
def _opened(path: Path) -> Iterator[Table]:
    yield _Text(path)
