"""How instances are parted: to train, to choose and unseen, by hash of the id or of its group; or into shards."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pmrl_cli.data.dataset import Dataset
from pmrl_cli.data.ids import hash_ids, unit_interval
from pmrl_cli.errors import DataError, Place, UsageError

__all__ = ["TEST", "TRAIN", "VALIDATION", "SplitRule", "column_of", "group_keys", "shard", "split_instances"]

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
    """How instances are dealt to train, validation and test.

    Args:
        seed: of the hash.
        validation: share of instances (or groups) that choose settings and stop training, in (0, 1).
        test: share that fit never touches, in [0, 1).
        group: side column; instances of one group stay together.
        column: side column that already says train, validation or test; where it names no validation, that
            is dealt by hash from train.
    """

    seed: int
    validation: float
    test: float = 0.0
    group: str | None = None
    column: str | None = None


def shard(count: int, index: int, of: int) -> slice:
    """Return the share of ``count`` rows that one of several equal workers does.

    The shares are consecutive, cover every row once, and differ by one row at most; with more shares than rows some
    are empty.

    Args:
        count: rows, at least 0.
        index: which share, in [0, of).
        of: how many shares, at least 1.
    """
    return slice(count * index // of, count * (index + 1) // of)


def column_of(dataset: Dataset, name: str) -> pa.Array:
    """Return a side column.

    Raises: UsageError if there is none of that name, naming those there are.
    """
    if name not in dataset.columns:
        there = ", ".join(sorted(dataset.columns)) or "none"
        what = "unknown side column"
        raise UsageError(
            what, found=repr(name), expected=f"one of: {there}", next_step="Give the table that has it with --labels."
        )
    return dataset.columns[name]


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

    By hash: an instance's part depends on its id (or group), the seed and the shares alone, so that adding
    instances moves nobody.

    Raises: DataError if a split column holds other words, or parts a group; UsageError if a column is not there.
    """
    keys = group_keys(dataset, rule.group)
    position = unit_interval(hash_ids(keys, rule.seed))
    parts = np.full(len(dataset), TRAIN, dtype=np.int8)
    parts[position < rule.test + rule.validation] = VALIDATION
    parts[position < rule.test] = TEST
    if rule.column is None:
        return parts
    words = [str(w).lower() if w is not None else None for w in column_of(dataset, rule.column).to_pylist()]
    unknown = sorted({str(w) for w in words if w not in _WORDS})
    if unknown:
        what = "split column holds other words"
        raise DataError(
            what,
            found=f"{', '.join(unknown[:5])} in column {rule.column!r}",
            expected="train, validation or test for every instance",
            next_step="Mend the column or leave --split-column away.",
        )
    stated = np.array([_WORDS[str(w)] for w in words], dtype=np.int8)
    if rule.group is not None:
        _refuse_leaks(dataset, keys, stated, rule)
    if (stated == VALIDATION).any():
        return stated
    # The stated test stays; validation is dealt from the stated train by its share of what is left.
    dealt = unit_interval(hash_ids(keys, rule.seed)) < rule.validation
    return np.where((stated == TRAIN) & dealt, VALIDATION, stated).astype(np.int8)


def _refuse_leaks(dataset: Dataset, keys: pa.Array, stated: npt.NDArray[np.int8], rule: SplitRule) -> None:
    """Refuse a stated split that has one group on both sides: what is learnt of it would be tested on it."""
    group = keys.dictionary_encode().indices.to_numpy(zero_copy_only=False)
    first = np.unique(group, return_index=True)[1]
    parted = np.flatnonzero(stated != stated[first][group])
    if not len(parted):
        return
    groups = np.unique(group[parted])
    there, here = int(first[group[parted[0]]]), int(parted[0])
    parts = {TRAIN: "train", VALIDATION: "validation", TEST: "test"}
    what = "a group stands in more than one part of the split"
    raise DataError(
        what,
        at=Place("side columns", rule.group, instance_id=dataset.ids[here].as_py()),
        found=f"{parts[stated[here]]}, and {parts[stated[there]]} at id {dataset.ids[there].as_py()!r}"
        f" ({len(groups)} such groups)",
        expected=f"each group of {rule.group!r} in one part of {rule.column!r}",
        next_step="Mend the split column, or leave --split-column or --group away.",
    )
