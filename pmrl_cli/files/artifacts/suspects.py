"""The two tables of instances that a diagnosis writes, and the list of exclusions that a fit reads."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pmrl_cli.data.exclusion import Exclusions
from pmrl_cli.data.instances import InstanceRows
from pmrl_cli.data.validate import text_ids
from pmrl_cli.errors import DataError, Place
from pmrl_cli.files.durable.atomic import atomic_file
from pmrl_cli.files.formats.probe import probe
from pmrl_cli.files.join.choosing import id_columns
from pmrl_cli.files.join.side_table import plain

__all__ = ["INSTANCES", "SUSPECTS_HEADER", "read_exclusions", "write_instances", "write_suspects"]

INSTANCES = "pmrl.instances"
SUSPECTS_HEADER = "id,modality,score,probability"


def write_instances(path: Path, names: Sequence[str], blocks: Iterable[InstanceRows]) -> None:
    """Write one row for each instance as Parquet.

    Columns: ``id``, ``rho``, ``signed``, ``agreement.<modality>`` (null where absent), ``score``,
    ``suspect_modality``, ``probability``.

    Args:
        path: the file; it appears when it is complete.
        names: modalities.
        blocks: of the instances.
    """
    schema = pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("rho", pa.float64()),
            pa.field("signed", pa.float64()),
            *(pa.field(f"agreement.{name}", pa.float64()) for name in names),
            pa.field("score", pa.float64()),
            pa.field("suspect_modality", pa.string()),
            pa.field("probability", pa.float64()),
        ],
        metadata={"format": INSTANCES, "format_version": "1"},
    )
    with (
        atomic_file(path) as temporary,
        pq.ParquetWriter(temporary, schema, write_page_checksum=True) as writer,
    ):
        for block in blocks:
            numbers = [block.rho, block.signed, *block.agreement.T, block.score]
            columns = [
                block.ids.cast(pa.string()),
                *(pa.array(np.ascontiguousarray(column), mask=np.isnan(column)) for column in numbers),
                pa.array(list(block.suspect_modality), pa.string()),
                pa.array(block.probability),
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def write_suspects(path: Path, rows: Iterable[tuple[str, str, float, float]]) -> None:
    """Write suspects as CSV: what ``fit --exclude`` reads.

    Args:
        path: the file; it appears when it is complete.
        rows: id, modality (or pair), score and probability of each.
    """
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.write(f"{SUSPECTS_HEADER}\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows((name, modality, f"{score:.6g}", f"{chance:.6g}") for name, modality, score, chance in rows)


def read_exclusions(path: Path, id_column: Sequence[str] = ()) -> Exclusions:
    """Read a list of entries to leave out: ids and, if there is a column ``modality``, which of their modalities.

    Args:
        path: CSV, Parquet or HDF5.
        id_column: names of the ids' column, none (or ones the list lacks) to go by the usual names.

    Raises: DataError if it has no ids.
    """
    contents = probe(path)
    found = id_columns(contents, None, id_column) or id_columns(contents, None, ())
    if not found and contents.columns and not any(column.rows for column in contents.columns):
        return Exclusions(contents.file, pa.array([], pa.large_string()), ())
    if not found:
        raise DataError(
            what="list without ids",
            at=Place(contents.file),
            found=", ".join(column.name for column in contents.columns[:8]) or "no column",
            expected=f"columns such as {SUSPECTS_HEADER}",
            next_step="Name the ids with --id-column.",
        )
    named = next(iter(found.values()))
    ids = text_ids(named.load(text=True), file=contents.file, dataset=named.name)
    column = next(
        (one for one in contents.columns if one.name.lstrip("/") == "modality" and one.rows == len(ids)), None
    )
    if column is None:
        return Exclusions(contents.file, ids, (None,) * len(ids))
    modalities = plain(column.load(text=True), Place(contents.file, column.name)).cast(pa.large_string()).to_pylist()
    return Exclusions(contents.file, ids, tuple(one or None for one in modalities))
