"""JSON lines: a table of one object a line, read whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.json

from pmrl_cli.files.formats.contents import Contents, ProbeOptions
from pmrl_cli.files.formats.tables import Table, contents_of, from_batches

__all__ = ["probe"]


def probe(path: Path, options: ProbeOptions) -> Contents:
    """Return what a file of JSON lines holds.

    Raises: DataError if it cannot be read.
    """
    return contents_of(path, lambda: _opened(path), options, path.stat().st_size)


class _Lines:
    def __init__(self, path: Path) -> None:
        size = path.stat().st_size
        block = min(max(2**20, size), 2**28)  # a line must fit one
        self._whole = pa.json.read_json(path, read_options=pa.json.ReadOptions(block_size=block))
        self.schema: pa.Schema = self._whole.schema
        self.rows = len(self._whole)

    def batches(self, names: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Yield some columns in order."""
        for batch in self._whole.select(list(names)).to_batches(max_chunksize=rows):
            yield from from_batches(batch, rows)


@contextmanager
def _opened(path: Path) -> Iterator[Table]:
    yield _Lines(path)
