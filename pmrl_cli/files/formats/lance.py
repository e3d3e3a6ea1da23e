"""Lance data sets, read as tables of Arrow columns, rows in the order of a scan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import lance
import pyarrow as pa

from pmrl_cli.files.formats.contents import Contents, ProbeOptions, bytes_of
from pmrl_cli.files.formats.tables import Table, contents_of

__all__ = ["probe"]


def probe(path: Path, options: ProbeOptions) -> Contents:
    """Return what the newest version of a Lance data set holds.

    Raises: DataError if it cannot be read.
    """
    return contents_of(path, lambda: _opened(path), options, bytes_of(path))


class _Scans:
    def __init__(self, dataset: lance.LanceDataset) -> None:
        self._dataset = dataset
        self.schema: pa.Schema = dataset.schema
        self.rows = int(dataset.count_rows())

    def batches(self, names: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Yield some columns in order."""
        scan = self._dataset.scanner(columns=list(names), batch_size=rows, batch_readahead=2, scan_in_order=True)
        yield from scan.to_batches()


@contextmanager
def _opened(path: Path) -> Iterator[Table]:
    yield _Scans(lance.dataset(str(path)))
