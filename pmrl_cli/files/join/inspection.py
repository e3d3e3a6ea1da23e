"""The dry run of discovery: what FILES hold and everything that is wrong with them, nothing written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pmrl_cli.data.join import JoinIndex, join_ids
from pmrl_cli.data.read_options import ReadOptions
from pmrl_cli.data.repeats import repeats_among
from pmrl_cli.errors import PmrlError
from pmrl_cli.files.join.discovery import Plan, discover
from pmrl_cli.files.join.fill import BAD_ROWS, join_plan, side_columns
from pmrl_cli.files.join.modalities import Modality
from pmrl_cli.files.join.streaming import stream

__all__ = ["Inspection", "inspect_files"]


@dataclass(frozen=True)
class Inspection:
    """What was found.

    Args:
        modalities: per modality: name, files, rows, dim, dtype, ids, missing, bad, different (vectors among those
            that are neither), templates (vectors that many rows hold for want of another: how many rows, and the
            first), joined, shared, alone (rows, without missing ones, whose id all, at least one other, or no other
            modality has such a row of).
        instances: how many the join keeps before bad rows are dropped.
        columns: names of the side columns.
        notes: what was decided, one sentence each.
        problems: every error, in the order found.
    """

    modalities: tuple[dict[str, Any], ...]
    instances: int
    columns: tuple[str, ...]
    notes: tuple[str, ...]
    problems: tuple[PmrlError, ...]

    @property
    def exit_code(self) -> int:
        """The code of the most severe problem, 0 without any."""
        return max((problem.exit_code for problem in self.problems), default=0)


def inspect_files(files: Sequence[str], options: ReadOptions = ReadOptions()) -> Inspection:
    """Look at FILES as ``read_dataset`` would, keep every error and go on.

    All rows are read once to find missing and bad ones.

    Args:
        files: as for ``read_dataset``.
        options: with ``on_bad="drop"`` bad rows are a count, not a problem.
    """
    problems: list[PmrlError] = []
    plan = discover(files, problems.append, options)
    joined = _attempt_join(plan, options, problems)
    found = []
    if plan.modalities:
        entries = [_entry(modality, options.on_bad, problems) for modality in plan.modalities]
        present = join_ids([ids.unique() for _, ids in entries], "outer", 1).present
        in_how_many = present.sum(axis=1)
        for column, (entry, _) in enumerate(entries):
            counts = in_how_many[present[:, column]]
            entry["joined"] = int((counts == len(plan.modalities)).sum())
            entry["shared"] = int((counts > 1).sum())
            entry["alone"] = int((counts == 1).sum())
            found.append(entry)
    columns: tuple[str, ...] = tuple(name for table in plan.side for name in table.columns)
    if joined is not None:
        for table in plan.side:
            try:
                side_columns([table], joined.ids if joined.named is None else joined.named)
            except PmrlError as error:
                problems.append(error)
    return Inspection(tuple(found), 0 if joined is None else len(joined.ids), columns, plan.notes, tuple(problems))


def _attempt_join(plan: Plan, options: ReadOptions, problems: list[PmrlError]) -> JoinIndex | None:
    if len(plan.modalities) < 2:
        return None
    try:
        return join_plan(plan, options)
    except PmrlError as error:
        problems.append(error)
        return None


def _entry(modality: Modality, on_bad: str, problems: list[PmrlError]) -> tuple[dict[str, Any], pa.LargeStringArray]:
    """Return what is shown of a modality, and the ids of its rows that are not missing."""
    entry: dict[str, Any] = {
        "modality": modality.name,
        "files": len(modality.shards),
        "rows": modality.rows,
        "dim": modality.dim,
        "dtype": modality.dtype,
        "ids": modality.id_name,
        "missing": None,
        "bad": None,
        "different": None,
        "templates": [],
    }
    try:
        result = stream(modality, None, modality.rows, None)
    except PmrlError as error:
        problems.append(error)
        return entry, modality.ids
    if result.bad_rows.total and on_bad == "error":
        problems.append(result.bad_rows.error(next_step=BAD_ROWS))
    assert result.hashes is not None
    repeats = repeats_among(result.hashes, result.hashes > 0).as_dict()
    counted = {"missing": int(result.missing.sum()), "bad": result.bad_rows.total}
    shown = {**entry, **counted, "different": repeats["different"], "templates": repeats["templates"]}
    return shown, modality.ids.filter(pa.array(~result.missing))
