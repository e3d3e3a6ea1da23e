"""How instances are split: into training, validation and test set, by hash; or into shards.

What is not independent stays together: instances of one group, and those that show the same thing because a modality
holds equal vectors of them or a column says so (``pmrl_cli.data.links``). Else a model would be evaluated on what
it was trained on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import csv

from pmrl_cli.data.columns import codes_of, column_of, group_column
from pmrl_cli.data.dataset import Dataset
from pmrl_cli.data.ids import hash_ids, unit_interval
from pmrl_cli.data.links import components, links_of
from pmrl_cli.errors import DataError, Place

__all__ = ["TEST", "TRAIN", "VALIDATION", "SplitRule", "group_keys", "split_instances", "split_text"]

TRAIN, VALIDATION, TEST = 0, 1, 2

_WORDS = {
    "train": TRAIN,
    "training": TRAIN,
    "val": VALIDATION,
    "valid": VALIDATION,
    "validation": VALIDATION,
    "dev": VALIDATION,
    "test": TEST,
}


@dataclass(frozen=True)
class SplitRule:
    """How instances are split into train, validation and test.

    Args:
        seed: of the hash.
        validation: fraction of instances (or groups) that choose settings and stop training, in (0, 1).
        test: fraction that fit never touches, in [0, 1).
        group: side column; instances of one group stay together (None: the column ``group``, where there is one).
        match: side column; instances of one value show the same thing, and stay together.
        column: side column that already says train, validation or test; where it names no validation, that
            is taken by hash from train.
    """

    seed: int
    validation: float
    test: float = 0.0
    group: str | None = None
    match: str | None = None
    column: str | None = None


def group_keys(dataset: Dataset, group: str | None) -> pa.Array:
    """Return (n,) strings that are equal for instances of one group; without a group, the ids.

    An instance whose group is null is a group of its own.
    """
    if group is None:
        return dataset.ids
    column = column_of(dataset, group).cast(pa.large_string())
    return pa.array(
        [
            f"group:{g}" if g is not None else f"id:{i}"
            for g, i in zip(column.to_pylist(), dataset.ids.to_pylist(), strict=True)
        ],
        pa.large_string(),
    )


def split_instances(dataset: Dataset, rule: SplitRule) -> npt.NDArray[np.int8]:
    """Return (n,) int8 of TRAIN, VALIDATION, TEST.

    By hash: the part of an instance that nothing is linked to depends on its id (or group), the seed and the shares
    alone, so that adding others does not move it. Linked instances go where one of them would, which is chosen by
    another hash.

    Raises: DataError if a split column holds other values, or parts a group or a match; UsageError if a column is not
        there.
    """
    group = group_column(dataset, rule.group)
    position = _positions(dataset, group, links_of(dataset, match=rule.match, group=group).dependent, rule.seed)
    parts = np.full(len(dataset), TRAIN, dtype=np.int8)
    parts[position < rule.test + rule.validation] = VALIDATION
    parts[position < rule.test] = TEST
    if rule.column is None:
        return parts
    words = [str(w).lower() if w is not None else None for w in column_of(dataset, rule.column).to_pylist()]
    unknown = sorted({str(w) for w in words if w not in _WORDS})
    if unknown:
        raise DataError(
            what="split column holds other values",
            found=f"{', '.join(unknown[:5])} in column {rule.column!r}",
            expected="train, validation or test for every instance",
            next_step="Fix the column, or leave --split-column out.",
        )
    stated = np.array([_WORDS[str(w)] for w in words], dtype=np.int8)
    for column in dict.fromkeys(name for name in (group, rule.match) if name is not None):
        _refuse_parted(dataset, column, stated, rule.column)
    if (stated == VALIDATION).any():
        return stated
    # The stated test stays; validation is taken from the stated train by its fraction of the rest.
    return np.where((stated == TRAIN) & (position < rule.validation), VALIDATION, stated).astype(np.int8)


def _positions(
    dataset: Dataset, group: str | None, dependent: npt.NDArray[np.int64], seed: int
) -> npt.NDArray[np.float64]:
    """Return (n,) numbers in [0, 1), equal within each component: the hash of one of its keys."""
    keys = group_keys(dataset, group)
    position = unit_interval(dataset.id_hashes(seed) if group is None else hash_ids(keys, seed))
    linked = np.flatnonzero(np.bincount(dependent)[dependent] > 1)
    if not len(linked):
        return position
    # By a hash that does not depend on the split's: the least of those would draw every component to one end.
    order = linked[np.lexsort((hash_ids(keys.take(pa.array(linked)), -1 - seed), dependent[linked]))]
    component = dependent[order]
    leads = np.diff(component, prepend=-1) > 0
    position[order] = position[order[leads]][np.cumsum(leads) - 1]
    return position


def _refuse_parted(dataset: Dataset, column: str, stated: npt.NDArray[np.int8], split_column: str) -> None:
    """Refuse a stated split that has one group on both sides: what is learnt of it would be tested on it."""
    group = components(len(dataset), [codes_of(dataset, column)])
    first = np.unique(group, return_index=True)[1]
    parted = np.flatnonzero(stated != stated[first][group])
    if not len(parted):
        return
    groups = np.unique(group[parted])
    there, here = int(first[group[parted[0]]]), int(parted[0])
    parts = {TRAIN: "train", VALIDATION: "validation", TEST: "test"}
    raise DataError(
        what="a group is in more than one part of the split",
        at=Place("side columns", column, instance_id=dataset.ids[here].as_py()),
        found=f"{parts[stated[here]]}, and {parts[stated[there]]} at id {dataset.ids[there].as_py()!r}"
        f" ({len(groups)} such groups)",
        expected=f"each group of {column!r} in one part of {split_column!r}",
        next_step="Fix the split column, or leave out --split-column, or the column of groups.",
    )


def split_text(ids: pa.LargeStringArray, parts: npt.NDArray[np.int8]) -> str:
    """Return CSV of the columns ``id`` and ``part`` (train, validation or test), in the order of the instances.

    Args:
        ids: (n,).
        parts: (n,) TRAIN, VALIDATION or TEST.
    """
    names = pa.array(["train", "validation", "test"]).take(pa.array(parts))
    sink = pa.BufferOutputStream()
    csv.write_csv(pa.table({"id": ids, "part": names}), sink, csv.WriteOptions(quoting_style="needed"))
    return str(sink.getvalue().to_pybytes(), "utf-8")
