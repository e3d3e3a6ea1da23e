"""Streaming: every row of every modality is read once, checked, and written where its instance stands."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import sha256
from threading import Event

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pmrl_cli.data.join import Joined, join_ids, rows_of
from pmrl_cli.data.read_options import ReadOptions
from pmrl_cli.data.repeated_ids import join_repeated, repeats_ids
from pmrl_cli.data.repeats import hash_rows
from pmrl_cli.data.validate import BadRows, row_faults
from pmrl_cli.errors import DataError, Place, PmrlError, raise_all
from pmrl_cli.files.durable.npy import RowStore, digest_rows, npy_header, runs
from pmrl_cli.files.formats.contents import BFLOAT16, Block, Vectors, to_float32
from pmrl_cli.files.join.candidates import shared_column
from pmrl_cli.files.join.discovery import Plan
from pmrl_cli.files.join.modalities import Modality
from pmrl_cli.files.join.side_table import SideTable

__all__ = ["BAD_ROWS", "Filled", "Scan", "element_type", "fill_all", "join_plan", "scan", "side_columns"]

BAD_ROWS = "Drop these instances with --on-bad drop, or keep them without that modality with --on-bad missing."

SIDE_BY_SIDE = 64 * 2**20
"""Bytes of all modalities from which they are streamed side by side: fewer do not pay for more reading processes."""


@dataclass(frozen=True)
class Scan:
    """What streaming one modality found.

    Args:
        missing: (n,) bool, instances whose vector is null or all NaN.
        bad: (n,) bool, instances whose vector cannot be used.
        bad_rows: the bad rows by place.
        digest: SHA-256 (hex) of the npy file of the rows as stored; None where they did not come in instance order.
        hashes: (n,) uint64 of the vectors (``pmrl_cli.data.repeats``), 0 where missing or bad; None where the rows
            were stored, and can be hashed there.
    """

    missing: npt.NDArray[np.bool_]
    bad: npt.NDArray[np.bool_]
    bad_rows: BadRows
    digest: str | None
    hashes: npt.NDArray[np.uint64] | None


@dataclass(frozen=True)
class Filled:
    """What is known of the joined data set once its row stores are filled.

    Args:
        ids: (n,) Arrow large_string.
        present: (n, k) bool.
        digests: SHA-256 (hex) of each modality, of the npy file that holds its rows.
        columns: side columns, each (n,).
        notes: what was decided or dropped.
        sources: per modality (n,) the stored row of each instance; None where row i is that of instance i.
    """

    ids: pa.LargeStringArray
    present: npt.NDArray[np.bool_]
    digests: tuple[str, ...]
    columns: dict[str, pa.Array]
    notes: tuple[str, ...]
    sources: tuple[npt.NDArray[np.int64] | None, ...]


def element_type(modality: Modality) -> np.dtype[np.generic]:
    """Return the type the modality's rows are stored in: bfloat16 as its bits."""
    return np.dtype("uint16" if modality.dtype == BFLOAT16 else modality.dtype)


def join_plan(plan: Plan, options: ReadOptions) -> Joined:
    """Join the modalities of a plan.

    Raises: DataError if no instance is left, with the rows and three ids of each modality.
    """
    lists = [modality.ids for modality in plan.modalities]
    if options.on_repeat != "error" and any(map(repeats_ids, lists)):
        joined = join_repeated(lists, options.join, options.min_modalities, options.on_repeat)
    else:
        joined = join_ids(lists, options.join, options.min_modalities)
    if not len(joined.ids):
        found = "; ".join(
            f"{modality.name} {modality.rows} rows ({', '.join(repr(i[:40]) for i in modality.ids[:3].to_pylist())})"
            for modality in plan.modalities
        )
        better = shared_column([(modality.contents, modality.shards) for modality in plan.modalities])
        hint = f"Type --id-column {better[0]}, {better[1]} of whose values they share." if better else None
        raise DataError(
            what="no instance in common",
            at=Place(plan.modalities[0].shards[0].file),
            found=found,
            expected="ids that the modalities share",
            next_step=hint or "Write ids alike in all files, or choose their column with --id-column.",
        )
    return joined


def scan(
    modality: Modality,
    positions: npt.NDArray[np.int64] | None,
    instances: int,
    target: RowStore | None,
    ended: Event | None = None,
) -> Scan:
    """Stream one modality into its row store, or only check it.

    Args:
        modality: what to read.
        positions: (rows,) instance of each row (where it is stored) or -1; None if row i is instance i.
        instances: n, or how many rows are stored.
        target: receives the rows, zeros where missing or bad; None to check only.
        ended: set where nobody wants the rest any more.
    """
    missing = np.zeros(instances, dtype=np.bool_)
    bad = np.zeros(instances, dtype=np.bool_)
    bad_rows = BadRows()
    hashes = np.zeros(instances, dtype=np.uint64) if target is None else None
    digest = sha256() if target is None else sha256(npy_header(target.dtype, instances, target.dim))
    hashed: Future[None] | None = None
    means = _Means(instances) if modality.averaged and target is not None else None
    in_order = True
    expected = row = 0
    with ThreadPoolExecutor(1) as hasher:
        for shard in modality.shards:
            first = row
            for block, null in _named(shard, modality.ids, row):
                if ended is not None and ended.is_set():
                    break
                rows = np.arange(row, row + len(block))
                row += len(block)
                where = rows if positions is None else positions[rows]
                if positions is not None and (kept := where >= 0).sum() < len(where):
                    block, rows, where = block[kept], rows[kept], where[kept]
                    null = None if null is None else null[kept]
                values = to_float32(block, shard.dtype)
                row_missing, row_bad = row_faults(values)
                if null is not None:
                    row_missing, row_bad = row_missing | null, row_bad & ~null
                for at in np.flatnonzero(row_bad):
                    source = int(rows[at])
                    place = Place(shard.file, shard.name, source - first, modality.ids[source].as_py())
                    bad_rows.add(place, values[at])
                missing[where[row_missing]] = True
                bad[where[row_bad]] = True
                if hashed is not None:
                    hashed.result()  # the reader fills the block before this one again
                if hashes is not None:
                    hashes[where] = np.where(row_missing | row_bad, 0, hash_rows(values))
                if target is None or not len(where):
                    continue
                if means is not None:
                    means.add(target, where, values, ~(row_missing | row_bad))
                    continue
                stored = values if target.dtype == np.float32 else block
                if (void := row_missing | row_bad).any():
                    stored = np.where(void[:, None], stored.dtype.type(0), stored)
                stored = np.ascontiguousarray(stored, dtype=target.dtype)
                in_order = in_order and where[0] == expected and bool((np.diff(where) == 1).all())
                if in_order:
                    expected += len(where)
                    hashed = hasher.submit(digest.update, stored.reshape(-1).view(np.uint8).data)
                    target.write_rows(int(where[0]), stored)
                else:
                    target.put(where, stored)
    if means is not None:
        missing &= means.counts == 0
    whole = in_order and expected == instances and target is not None
    return Scan(missing, bad, bad_rows, digest.hexdigest() if whole else None, hashes)


class _Means:
    """Means of the rows that lead to one instance, taken in the row store as they come."""

    def __init__(self, instances: int) -> None:
        self.counts = np.zeros(instances, dtype=np.int64)

    def add(
        self,
        target: RowStore,
        where: npt.NDArray[np.int64],
        values: npt.NDArray[np.float32],
        valid: npt.NDArray[np.bool_],
    ) -> None:
        """Take rows into the means: (B,) instances of (B, d) values, of which those that are valid count."""
        rows, places, added = np.unique(where[valid], return_inverse=True, return_counts=True)
        if not len(rows):
            return
        sums = np.zeros((len(rows), values.shape[1]))
        np.add.at(sums, places, values[valid])
        before = self.counts[rows][:, None]
        old = np.concatenate([target.read_rows(int(rows[a]), int(rows[b - 1]) + 1) for a, b in runs(rows)])
        target.put(rows, (before * old + sums) / (before + added[:, None]))
        self.counts[rows] += added


def _named(shard: Vectors, ids: pa.LargeStringArray, first: int) -> Iterator[Block]:
    """Stream a shard whose ids begin at ``first``; an error that names rows of it is given their ids."""

    def named(place: Place) -> Place:
        return place if place.row is None else replace(place, instance_id=ids[first + place.row].as_py())

    try:
        yield from shard.blocks()
    except DataError as error:
        if error.at is None or error.at.row is None:
            raise
        raise DataError(
            error.what,
            found=error.found,
            expected=error.expected,
            next_step=error.next_step,
            at=named(error.at),
            others=[named(place) for place in error.others],
            total=error.total,
        ) from None


def _scan_all(
    plan: Plan, joined: Joined, targets: Sequence[RowStore], progress: Callable[[str], None]
) -> list[Scan | DataError]:
    """Stream every modality into its row store; what is wrong with the data of one is in its place."""
    ended = Event()

    def scanned(column: int) -> Scan | DataError:
        modality = plan.modalities[column]
        progress(modality.name)
        try:
            return scan(modality, joined.positions[column], joined.stored(column), targets[column], ended)
        except DataError as error:
            return error
        except BaseException:
            ended.set()
            raise

    columns = range(len(plan.modalities))
    size = sum(m.rows * m.dim * element_type(m).itemsize for m in plan.modalities)
    at_once = min(len(columns), os.cpu_count() or 1)
    if size < SIDE_BY_SIDE or at_once == 1:
        return list(map(scanned, columns))
    with ThreadPoolExecutor(at_once) as pool:
        try:
            return list(pool.map(scanned, columns))
        finally:
            ended.set()  # interrupted: the others need not go on to their last row


def fill_all(
    plan: Plan,
    joined: Joined,
    targets: Sequence[RowStore],
    options: ReadOptions,
    *,
    progress: Callable[[str], None] = lambda name: None,
) -> Filled:
    """Stream every modality into its row store, then drop the instances that cannot stay.

    Dropping moves rows together in place: it costs a second pass, and only where there is something to drop.

    Args:
        plan: what to read.
        joined: its join.
        targets: one row store per modality, of as many rows as it stores.
        options: what is kept and what is dropped.
        progress: told the name of each modality as its turn comes.

    Raises: DataError for bad rows unless they are dropped, and if nothing is left.
    """
    present = joined.present.copy()
    bad = np.zeros(present.shape, dtype=np.bool_)
    digests: list[str | None] = []
    problems: list[PmrlError] = []
    plan_notes: list[str] = []
    for column, result in enumerate(_scan_all(plan, joined, targets, progress)):
        if isinstance(result, DataError):
            problems.append(result)
            continue
        if result.bad_rows.total and options.on_bad == "error":
            problems.append(result.bad_rows.error(next_step=BAD_ROWS))
        source = joined.source(column)
        missing, bad_here = (found if source is None else found[source] for found in (result.missing, result.bad))
        present[missing, column] = False
        if options.on_bad == "missing":
            present[bad_here, column] = False
            if result.bad_rows.total:
                plan_notes.append(f"{plan.modalities[column].name}: {result.bad_rows.total} bad rows are missing.")
        else:
            bad[:, column] = bad_here
        digests.append(result.digest)
    if problems:
        raise_all(problems)
    least = present.shape[1] if options.join == "inner" else options.min_modalities
    usable = present.sum(axis=1) >= least
    keep = usable & ~bad.any(axis=1)
    notes = [*plan.notes, *plan_notes, _join_note(plan, joined, options.join), *_drop_notes(plan, usable, bad)]
    ids, named = joined.ids, joined.ids if joined.named is None else joined.named
    sources = [joined.source(column) for column in range(len(targets))]
    if not keep.all():
        if not keep.any():
            raise DataError(
                what="no instance left",
                found=f"{len(keep)} instances joined, all of them missing a modality or bad",
                expected="at least one",
                next_step="See pmrl inspect for what is wrong with them.",
            )
        for column, target in enumerate(targets):
            if sources[column] is None:
                target.shrink(keep)
                digests[column] = None
        sources = [None if source is None else source[keep] for source in sources]
        ids, named, present = ids.filter(pa.array(keep)), named.filter(pa.array(keep)), present[keep]
    columns = side_columns(plan.side, named)
    with ThreadPoolExecutor() as pool:
        final = tuple(pool.map(lambda known, target: known or digest_rows(target), digests, targets))
    return Filled(ids, present, final, columns, tuple(notes), tuple(sources))


def _join_note(plan: Plan, joined: Joined, how: str) -> str:
    by = "row" if plan.named_by_row else "id"
    rows = ", ".join(f"{modality.name} {modality.rows}" for modality in plan.modalities)
    return f"{how} join by {by}: {len(joined.ids)} instances of {rows} rows."


def _drop_notes(plan: Plan, usable: npt.NDArray[np.bool_], bad: npt.NDArray[np.bool_]) -> list[str]:
    notes = []
    if lost := int((~usable).sum()):
        notes.append(f"dropped {lost} instances whose vector is null or all NaN in too many modalities.")
    if dropped := int((usable & bad.any(axis=1)).sum()):
        counts = zip(plan.modalities, bad.sum(axis=0).tolist(), strict=True)
        rows = ", ".join(f"{modality.name} {count}" for modality, count in counts if count)
        notes.append(f"dropped {dropped} instances with a bad row ({rows}).")
    return notes


def side_columns(tables: Sequence[SideTable], ids: pa.LargeStringArray) -> dict[str, pa.Array]:
    """Return the side columns in instance order, null where a table has no row for an instance.

    Raises: DataError if a table names none of the instances.
    """
    columns: dict[str, pa.Array] = {}
    for table in tables:
        rows = rows_of(table.ids, ids)
        if (rows < 0).all():
            raise DataError(
                what="side table names none of the instances",
                at=Place(table.file),
                found=", ".join(repr(i) for i in table.ids[:3].to_pylist()) or "no row",
                expected=f"ids such as {', '.join(repr(i) for i in ids[:3].to_pylist())}",
                next_step="Write ids alike in all files, or leave the table out.",
            )
        index = pa.array(rows, mask=rows < 0)
        columns |= {name: pc.take(values, index) for name, values in table.columns.items()}
    return columns
