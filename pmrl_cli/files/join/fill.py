"""The join carried out: every modality streamed to its row store, and the instances that cannot stay dropped."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pmrl_cli.array_types import Mask
from pmrl_cli.data.join import JoinIndex, join_ids, rows_of
from pmrl_cli.data.read_options import ReadOptions
from pmrl_cli.data.repeated_ids import join_repeated, repeats_ids
from pmrl_cli.errors import DataError, Place, PmrlError, named, raise_all
from pmrl_cli.files.durable.npy import RowStore, digest_rows
from pmrl_cli.files.formats.contents import BFLOAT16
from pmrl_cli.files.join.candidates import shared_column
from pmrl_cli.files.join.discovery import Plan
from pmrl_cli.files.join.modalities import Modality
from pmrl_cli.files.join.patterns import hint_of_affixes
from pmrl_cli.files.join.side_table import SideTable
from pmrl_cli.files.join.streaming import RowCheck, stream

__all__ = ["BAD_ROWS", "JoinedData", "element_type", "fill_all", "join_plan", "side_columns"]


BAD_ROWS = "Drop these instances with --on-bad drop, or keep them without that modality with --on-bad missing."

SIDE_BY_SIDE = 64 * 2**20
"""Bytes of all modalities from which they are streamed side by side: fewer do not pay for more reading processes."""


@dataclass(frozen=True)
class JoinedData:
    """What is known of the joined data set once its row stores are filled.

    Args:
        ids: (n,) Arrow large_string.
        present: (n, k) bool.
        digests: SHA-256 (hex) of each modality, of the npy file that holds its rows.
        columns: side columns, each (n,).
        notes: what was decided or dropped.
        sources: per modality (n,) the stored row of each instance; None where row i is that of instance i.
        named: (n,) the ids as the files have them, where instances got ids of their own; else None.
    """

    ids: pa.LargeStringArray
    present: npt.NDArray[np.bool_]
    digests: tuple[str, ...]
    columns: dict[str, pa.Array]
    notes: tuple[str, ...]
    sources: tuple[npt.NDArray[np.int64] | None, ...]
    named: pa.LargeStringArray | None = None


def element_type(modality: Modality) -> np.dtype[np.generic]:
    """Return the type the modality's rows are stored in: bfloat16 as its bits."""
    return np.dtype("uint16" if modality.dtype == BFLOAT16 else modality.dtype)


def join_plan(plan: Plan, options: ReadOptions) -> JoinIndex:
    """Join the modalities of a plan.

    Raises: DataError if no instance is left, with the rows and three ids of each modality.
    """
    lists = [modality.ids for modality in plan.modalities]
    if options.on_repeat != "error" and any(map(repeats_ids, lists)):
        joined = join_repeated(lists, options.join, options.min_modalities, options.on_repeat)
    else:
        joined = join_ids(lists, options.join, options.min_modalities)
    affixes = None
    if not (options.id_pattern or plan.named_by_row or any(map(repeats_ids, lists))):
        affixes = hint_of_affixes([(modality.name, modality.ids) for modality in plan.modalities])
    if len(joined.ids) and affixes is not None:
        raise DataError(
            what="ids differ by a prefix or suffix",
            at=Place(plan.modalities[0].shards[0].file),
            found=affixes[0],
            expected="equal ids of the same instance",
            next_step=f"Type {affixes[1]} to join by what they share, or --id-pattern '(.+)' to take them whole.",
        )
    if not len(joined.ids):
        found = "; ".join(
            f"{modality.name} {modality.rows} rows ({named(modality.ids[:3].to_pylist())})"
            for modality in plan.modalities
        )
        better = shared_column([(modality.contents, modality.shards) for modality in plan.modalities])
        hint = f"Type --id-column {better[0]}, {better[1]} of whose values they share." if better else None
        if hint is None and affixes is not None:
            hint = f"Type {affixes[1]}: {affixes[0]}."
        raise DataError(
            what="no instance in common",
            at=Place(plan.modalities[0].shards[0].file),
            found=found,
            expected="ids that the modalities share",
            next_step=hint or "Write ids alike in all files, or choose their column with --id-column.",
        )
    return joined


def _stream_all(
    plan: Plan, joined: JoinIndex, targets: Sequence[RowStore], progress: Callable[[str], None]
) -> list[RowCheck | DataError]:
    """Stream every modality into its row store; what is wrong with the data of one is in its place."""
    ended = Event()

    def streamed(column: int) -> RowCheck | DataError:
        modality = plan.modalities[column]
        progress(modality.name)
        try:
            return stream(modality, joined.positions[column], joined.stored(column), targets[column], ended)
        except DataError as error:
            return error
        except BaseException:
            ended.set()
            raise

    columns = range(len(plan.modalities))
    size = sum(m.rows * m.dim * element_type(m).itemsize for m in plan.modalities)
    at_once = min(len(columns), os.cpu_count() or 1)
    if size < SIDE_BY_SIDE or at_once == 1:
        return list(map(streamed, columns))
    with ThreadPoolExecutor(at_once) as pool:
        try:
            return list(pool.map(streamed, columns))
        finally:
            ended.set()  # interrupted: the others need not go on to their last row


def fill_all(
    plan: Plan,
    joined: JoinIndex,
    targets: Sequence[RowStore],
    options: ReadOptions,
    *,
    progress: Callable[[str], None] = lambda name: None,
) -> JoinedData:
    """Stream every modality into its row store, then drop the instances that cannot stay.

    Dropping moves rows together in place: it costs a second pass, and only where there is something to drop.

    Args:
        plan: what to read.
        joined: its join.
        targets: one row store per modality, of as many rows as it stores.
        options: what is kept and what is dropped.
        progress: called with the name of each modality as its turn comes.

    Raises: DataError for bad rows unless they are dropped, and if nothing is left.
    """
    checks = _checks(_stream_all(plan, joined, targets, progress), options)
    present, bad = _faults(joined, checks, options)
    least = present.shape[1] if options.join == "inner" else options.min_modalities
    usable = present.sum(axis=1) >= least
    notes = [*plan.notes, *_missing_notes(plan, checks, options), _join_note(plan, joined, options.join)]
    notes += _drop_notes(plan, usable, bad)
    ids, named = joined.ids, joined.ids if joined.named is None else joined.named
    sources = [joined.source(column) for column in range(len(targets))]
    digests = [check.digest for check in checks]
    keep = usable & ~bad.any(axis=1)
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
    own = None if joined.named is None else named
    return JoinedData(ids, present, final, columns, tuple(notes), tuple(sources), own)


def _checks(results: Sequence[RowCheck | DataError], options: ReadOptions) -> list[RowCheck]:
    """Return the checks of all modalities, or raise what is wrong with them together."""
    checks, problems = [], list[PmrlError]()
    for result in results:
        if isinstance(result, DataError):
            problems.append(result)
            continue
        checks.append(result)
        if result.bad_rows.total and options.on_bad == "error":
            problems.append(result.bad_rows.error(next_step=BAD_ROWS))
    if problems:
        raise_all(problems)
    return checks


def _faults(joined: JoinIndex, checks: Sequence[RowCheck], options: ReadOptions) -> tuple[Mask, Mask]:
    """Return (n, k) which vectors there are, and which of them cannot be used."""
    present = joined.present.copy()
    bad = np.zeros(present.shape, dtype=np.bool_)
    for column, check in enumerate(checks):
        source = joined.source(column)
        missing, unusable = (found if source is None else found[source] for found in (check.missing, check.bad))
        present[missing, column] = False
        if options.on_bad == "missing":
            present[unusable, column] = False
        else:
            bad[:, column] = unusable
    return present, bad


def _missing_notes(plan: Plan, checks: Sequence[RowCheck], options: ReadOptions) -> list[str]:
    if options.on_bad != "missing":
        return []
    return [
        f"{modality.name}: {check.bad_rows.total} bad rows are missing."
        for modality, check in zip(plan.modalities, checks, strict=True)
        if check.bad_rows.total
    ]


def _join_note(plan: Plan, joined: JoinIndex, how: str) -> str:
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
                found=named(table.ids[:3].to_pylist()) or "no row",
                expected=f"ids such as {named(ids[:3].to_pylist())}",
                next_step="Write ids alike in all files, or leave the table out.",
            )
        index = pa.array(rows, mask=rows < 0)
        columns |= {name: pc.take(values, index) for name, values in table.columns.items()}
    return columns
