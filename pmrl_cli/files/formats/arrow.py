"""Arrow IPC: files (Feather) and streams, read through a memory map."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.feather

from pmrl_cli.files.formats.contents import Contents, ProbeOptions
from pmrl_cli.files.formats.tables import Table, contents_of, from_batches

__all__ = ["opened", "probe"]


def probe(path: Path, options: ProbeOptions) -> Contents:
    """Return what an Arrow file or stream holds.

    Raises: DataError if it cannot be read.
    """
    return contents_of(path, lambda: opened(path), options, path.stat().st_size)


class _Batches:
    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            head = file.read(8)
        self._path = path
        self._whole: pa.Table | None = None
        self._file = head.startswith(b"ARROW1")
        if head.startswith(b"FEA1"):
            self._whole = pa.feather.read_table(path)
            self.schema: pa.Schema = self._whole.schema
            self.rows = len(self._whole)
            return
        self.rows = 0
        with pa.memory_map(str(path)) as source:
            reader = pa.ipc.open_file(source) if self._file else pa.ipc.open_stream(source)
            self.schema = reader.schema
            for batch in self._each(reader):
                self.rows += len(batch)

    def _each(self, reader: pa.RecordBatchFileReader | pa.RecordBatchStreamReader) -> Iterator[pa.RecordBatch]:
        if not self._file:
            yield from reader
            return
        for index in range(reader.num_record_batches):
            yield reader.get_batch(index)

    def batches(self, names: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Yield some columns in order."""
        if self._whole is not None:
            for batch in self._whole.select(list(names)).to_batches(max_chunksize=rows):
                yield from from_batches(batch, rows)
            return
        with pa.memory_map(str(self._path)) as source:
            reader = pa.ipc.open_file(source) if self._file else pa.ipc.open_stream(source)
            for batch in self._each(reader):
                chosen = batch.select(list(names))
                chosen.validate(full=True)
                yield from from_batches(chosen, rows)


@contextmanager
def opened(path: Path) -> Iterator[Table]:
    """Open an Arrow file or stream."""
    yield _Batches(path)
