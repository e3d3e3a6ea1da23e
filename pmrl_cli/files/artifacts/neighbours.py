"""The table that a search writes: one row for each query and each of its nearest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pmrl_cli.data.dataset import Dataset
from pmrl_cli.errors import UsageError
from pmrl_cli.files.durable.atomic import atomic_file

__all__ = ["NEIGHBOURS", "check_columns", "neighbour_rows", "write_neighbours"]

NEIGHBOURS = "pmrl.neighbours"

_OWN = ("query", "rank", "id", "score")


def check_columns(gallery: Dataset, columns: Sequence[str]) -> None:
    """Refuse side columns that the gallery does not have, or whose names are those of the table.

    Raises: UsageError.
    """
    known = ", ".join(sorted(set(gallery.columns) - set(_OWN)))
    for name in columns:
        if name not in gallery.columns or name in _OWN:
            raise UsageError(
                what="no such side column" if name not in gallery.columns else "name of a column is taken",
                found=f"--column {name}",
                expected=f"one of {known}" if known else "a side table of the gallery",
                next_step="Name another, or pass --labels FILE for the gallery.",
            )


def neighbour_rows(
    queries: pa.Array, found: pa.Array, scores: pa.Array, columns: dict[str, pa.Array]
) -> pa.RecordBatch:
    """Return the rows of some queries.

    Args:
        queries: (q,) ids.
        found: (q * k,) ids of the nearest of each query, best first.
        scores: (q * k,) float32.
        columns: side columns of those found, (q * k,) each.
    """
    count = len(found) // max(1, len(queries))
    repeated = pa.array([i for i in range(len(queries)) for _ in range(count)], pa.int64())
    ranks = pa.array([rank for _ in range(len(queries)) for rank in range(1, count + 1)], pa.int32())
    own = [queries.take(repeated).cast(pa.string()), ranks, found.cast(pa.string()), scores]
    return pa.record_batch([*own, *columns.values()], names=[*_OWN, *columns])


def write_neighbours(path: Path, batches: Iterable[pa.RecordBatch]) -> None:
    """Write the rows as Parquet; the file appears when it is complete.

    Columns: ``query``, ``rank`` (from 1), ``id``, ``score``, then the side columns asked for.
    """
    with atomic_file(path) as temporary:
        writer = None
        try:
            for batch in batches:
                if writer is None:
                    schema = batch.schema.with_metadata({"format": NEIGHBOURS, "format_version": "1"})
                    writer = pq.ParquetWriter(temporary, schema, write_page_checksum=True)
                writer.write_batch(batch.cast(writer.schema))
        finally:
            if writer is not None:
                writer.close()
