"""Join of id lists of which some name several rows by one id: what ``--on-repeat`` makes of them.

``first`` takes the first row of an id, ``mean`` the mean of them all (the rows lead to one instance, and the mean is
taken as they are stored). ``pair`` makes every row an instance of its own, ``id#0``, ``id#1``, ...: the other
modalities have one row for all of them, which is stored once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pmrl_cli.data.join import JoinIndex, join_ids
from pmrl_cli.errors import DataError

__all__ = ["join_repeated", "repeats_ids"]

Numbers = npt.NDArray[np.int64]


def repeats_ids(ids: pa.LargeStringArray) -> bool:
    """Return whether an id names two rows."""
    return bool(pc.count_distinct(ids).as_py() < len(ids))


def join_repeated(
    lists: Sequence[pa.LargeStringArray], how: str, min_modalities: int = 2, on_repeat: str = "pair"
) -> JoinIndex:
    """Join k lists of ids, of which some may name several rows by one id.

    Args:
        lists: k arrays of (rows_m,) Arrow large_string without nulls.
        how: as for ``join_ids``.
        min_modalities: likewise.
        on_repeat: ``pair``, ``mean`` or ``first``.

    Raises: DataError if two modalities repeat one id and rows are to be paired: which belongs to which is not known.
    """
    encoded = [ids.dictionary_encode() for ids in lists]
    codes = [np.asarray(one.indices.to_numpy(zero_copy_only=False), dtype=np.int64) for one in encoded]
    base = join_ids([one.dictionary.cast(pa.large_string()) for one in encoded], how, min_modalities)
    # For each row of a list, the instance of its id; for each instance of a list, its rows in their order.
    leads = [
        code if position is None else position[code] for code, position in zip(codes, base.positions, strict=True)
    ]
    if on_repeat != "pair":
        positions = [_first(lead) if on_repeat == "first" else lead for lead in leads]
        return JoinIndex(base.ids, tuple(positions), base.present)
    counts = np.stack([np.bincount(lead[lead >= 0], minlength=len(base.ids)) for lead in leads], axis=1)
    both = np.flatnonzero((counts > 1).sum(axis=1) > 1)
    if len(both):
        raise DataError(
            what="rows of a repeated id cannot be paired",
            found=f"id {base.ids[int(both[0])].as_py()!r} names rows of two modalities ({len(both)} such ids)",
            expected="one modality that repeats an id",
            next_step="Use --on-repeat mean or first, or name the column of their own ids with --id-column.",
        )
    times = np.maximum(counts.max(axis=1), 1)
    instance = np.repeat(np.arange(len(base.ids)), times)
    within = np.arange(len(instance)) - np.repeat(np.cumsum(times) - times, times)
    found = [_pair(lead, counts[:, m], instance, within) for m, lead in enumerate(leads)]
    old = base.ids.take(pa.array(instance))
    numbered = pc.binary_join_element_wise(
        old, pa.array(within).cast(pa.large_string()), pa.scalar("#", pa.large_string())
    )
    ids = pc.if_else(pa.array(times[instance] > 1), numbered, old)
    return JoinIndex(ids, tuple(one[0] for one in found), base.present[instance], tuple(one[1] for one in found), old)


def _first(lead: Numbers) -> Numbers:
    """Return the instance of each row, -1 where an earlier row has it."""
    kept = np.full(len(lead), -1, dtype=np.int64)
    first = np.unique(lead, return_index=True)[1]
    kept[first] = lead[first]
    return kept


def _pair(lead: Numbers, counts: Numbers, instance: Numbers, within: Numbers) -> tuple[Numbers, Numbers | None]:
    """Return where each row of a list is stored, and the stored row of each instance (None: its own).

    Args:
        lead: (rows,) instance of each row before rows were paired, -1 where its id is not kept.
        counts: (n_before,) rows of each.
        instance: (n,) which of those an instance was.
        within: (n,) its number among those of one id.
    """
    rows = np.flatnonzero(lead >= 0)
    rows = rows[np.argsort(lead[rows], kind="stable")]
    starts = np.cumsum(counts) - counts
    has = counts[instance] > 0
    number = np.where(counts[instance] > 1, within, 0)
    row = np.full(len(instance), -1, dtype=np.int64)
    row[has] = rows[(starts[instance] + number)[has]]
    taken, first, stored = np.unique(row[has], return_index=True, return_inverse=True)
    positions = np.full(len(lead), -1, dtype=np.int64)
    if len(taken) == has.sum():  # no row is shared: it is stored where its instance stands
        positions[row[has]] = np.flatnonzero(has)
        return positions, None
    order = np.argsort(first)  # in the order of the instances
    place = np.empty(len(taken), dtype=np.int64)
    place[order] = np.arange(len(taken))
    positions[taken] = place
    sources = np.full(len(instance), len(taken), dtype=np.int64)  # a row of zeros for those that lack it
    sources[has] = place[stored]
    return positions, sources
