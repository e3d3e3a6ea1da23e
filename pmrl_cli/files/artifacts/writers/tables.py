"""What the writers share: tables written side by side while the next block is made."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pmrl_cli.data.dataset import EmbeddedBlock
from pmrl_cli.files.artifacts.plan import ExportPlan, Output, has
from pmrl_cli.files.formats.vector_tables import Parts, VectorTable

__all__ = ["Behind", "check_count", "modality_rows", "write_tables"]


def check_count(name: str, written: int, announced: int) -> None:
    """Raise ValueError if blocks held another number of instances than announced."""
    if written != announced:
        message = f"the blocks hold {written} instances of {name!r}, {announced} were announced"
        raise ValueError(message)


def modality_rows(plan: ExportPlan) -> dict[str, object]:
    """Return the entry of a manifest that says how many rows each modality has."""
    return {"modalities": {output.name: {"rows": plan.rows_of(output), **output.besides} for output in plan.listed()}}


class Behind:
    """Writes the tables of a block side by side, while the next block is made.

    Encoding, hashing and writing let go of the interpreter's lock. A context manager: leaving it waits for what is
    being written, so that nothing is closed before.
    """

    def __init__(self, tables: int) -> None:
        self._pool = ThreadPoolExecutor(min(tables, os.cpu_count() or 1))
        self._begun: list[Future[None]] = []

    def write(self, tasks: Iterable[Callable[[], None]]) -> None:
        """Begin the tasks of one block, once those of the block before are done.

        Raises: what one of those raised.
        """
        self.wait()
        self._begun = [self._pool.submit(task) for task in tasks]

    def wait(self) -> None:
        """Wait for all that was begun.

        Raises: what one of the tasks raised.
        """
        for task in self._begun:
            task.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self._pool.shutdown()


def write_tables(
    blocks: Iterator[EmbeddedBlock], plan: ExportPlan, open_table: Callable[[Output, Parts], VectorTable]
) -> dict[Path, str]:
    """Write each output of a plan to a table of its own.

    Args:
        blocks: as for ``Write``.
        plan: as for ``Write``.
        open_table: makes the table of an output for the rows that its parts hold.

    Returns: the SHA-256 (hex) of the files that were hashed as they were written.
    """
    parts, outputs = plan.tables(), plan.outputs()
    seen = dict.fromkeys(parts, 0)
    with ExitStack() as stack:
        tables = {one.name: stack.enter_context(closing(open_table(one, parts[one.name]))) for one in outputs}
        behind = stack.enter_context(Behind(len(tables)))

        def write(
            name: str,
            block: EmbeddedBlock,
            vectors: npt.NDArray[np.float32],
            codes: npt.NDArray[np.int32] | None,
            kept: npt.NDArray[np.bool_],
        ) -> None:
            rows = np.flatnonzero(kept)
            first, last = (x - seen[name] for x in (parts[name].skip, parts[name].skip + parts[name].rows))
            seen[name] += len(rows)
            rows = rows[max(0, first) : max(0, last)]
            if len(rows) == len(kept):
                tables[name].write(block.ids, vectors.astype(plan.number, order="C", copy=False), codes)
            elif len(rows):
                some = vectors[rows].astype(plan.number, copy=False)
                tables[name].write(block.ids.take(pa.array(rows)), some, None if codes is None else codes[rows])

        for block in blocks:
            behind.write(
                partial(
                    write,
                    one.name,
                    block,
                    one.vectors(block),
                    None if one.codes is None else one.codes(block),
                    has(plan, one, block),
                )
                for one in outputs
            )
        behind.wait()
        for name, part in parts.items():
            check_count(name, seen[name], part.held)
    return {path: digest for table in tables.values() for path, digest in table.digests.items()}
