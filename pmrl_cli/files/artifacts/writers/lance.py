"""Lance: one data set of all modalities, as LanceDB reads it.

The one format whose bytes differ from run to run: Lance names its files at random and notes the time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import lance
import pyarrow as pa

from pmrl_cli.data.dataset import EmbeddedBlock
from pmrl_cli.errors import UsageError
from pmrl_cli.files.artifacts.plan import ExportPlan
from pmrl_cli.files.artifacts.writers import Written
from pmrl_cli.files.artifacts.writers.tables import modality_rows
from pmrl_cli.files.artifacts.writers.wide import counted, wide_batches, wide_schema
from pmrl_cli.files.durable.checksums import sha256_of

__all__ = ["write"]


def write(folder: Path, blocks: Iterator[EmbeddedBlock], plan: ExportPlan) -> Written:
    """Write ``aligned.lance``; see ``Write``."""
    dotted = [name for name in wide_schema(plan).names if "." in name]
    if dotted:
        raise UsageError(
            what="Lance takes no dot in the name of a column",
            found=", ".join(dotted),
            expected="names without",
            next_step="Choose --format parquet.",
        )
    failures: list[BaseException] = []

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            yield from counted(wide_batches(blocks, plan), plan)
        except BaseException as failure:
            failures.append(failure)
            raise

    path = folder / f"aligned{plan.suffix}.lance"
    try:
        lance.write_dataset(pa.RecordBatchReader.from_batches(wide_schema(plan), batches()), str(path))
    except Exception:
        if failures:  # which Lance has made an error of its own of
            raise failures[0] from None
        raise
    files = (one for one in sorted(path.rglob("*")) if one.is_file())
    return modality_rows(plan), {one: sha256_of(one) for one in files}
