"""Parquet: a table in row groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pmrl_cli.errors import Place
from pmrl_cli.files.formats.contents import Contents, ProbeOptions, reading, refuse_bomb
from pmrl_cli.files.formats.tables import Table, contents_of

__all__ = ["probe"]


def probe(path: Path, options: ProbeOptions) -> Contents:
    """Return what a Parquet file holds; the checksums of pages are checked.

    Raises: DataError if it cannot be read.
    """
    size = path.stat().st_size
    with reading(str(path)), _opened(path) as table:
        refuse_bomb(Place(str(path)), table.rows, size)
    return contents_of(path, lambda: _opened(path), options, size)


class _File:
    def __init__(self, file: pq.ParquetFile) -> None:
        self._file = file
        self.schema: pa.Schema = file.schema_arrow
        self.rows = int(file.metadata.num_rows)

    def batches(self, names: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Yield some columns in order."""
        yield from self._file.iter_batches(rows, columns=list(names))


@contextmanager
def _opened(path: Path) -> Iterator[Table]:
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        yield _File(file)
