"""Join of id lists: which instances a data set keeps, and where each row of each modality goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["JoinIndex", "join_ids", "rows_of"]


@dataclass(frozen=True)
class JoinIndex:
    """The instances of a join and the way of every row to its instance.

    Args:
        ids: (n,) Arrow large_string, the instances kept.
        positions: per modality (rows_m,) int64, the instance of each row or -1 where its id is not kept; None
            where row i is instance i (the ids are equal), which readers take as the fast path.
        present: (n, k) bool, True where a modality lists the instance.
        sources: per modality (n,) the stored row of each instance, where several instances share one; then
            ``positions`` are stored rows. None where row i is that of instance i; empty where that holds of all.
        named: (n,) the ids as the files have them, where instances got ids of their own; else None.
    """

    ids: pa.LargeStringArray
    positions: tuple[npt.NDArray[np.int64] | None, ...]
    present: npt.NDArray[np.bool_]
    sources: tuple[npt.NDArray[np.int64] | None, ...] = ()
    named: pa.LargeStringArray | None = None

    def source(self, modality: int) -> npt.NDArray[np.int64] | None:
        """Return the stored row of each instance in a modality, None where row i is that of instance i."""
        return self.sources[modality] if self.sources else None

    def stored(self, modality: int) -> int:
        """Return how many rows a modality stores."""
        source = self.source(modality)
        return len(self.ids) if source is None else int(source.max(initial=-1)) + 1


def rows_of(ids: pa.LargeStringArray, wanted: pa.LargeStringArray) -> npt.NDArray[np.int64]:
    """Return for each wanted id its row in ``ids``, or -1.

    Args:
        ids: (m,) Arrow large_string, unique.
        wanted: (n,) Arrow large_string.

    Returns: (n,) int64.
    """
    found = pc.fill_null(pc.index_in(wanted, value_set=ids), -1)
    return np.asarray(found.to_numpy(zero_copy_only=False), dtype=np.int64)


def join_ids(lists: Sequence[pa.LargeStringArray], how: str, min_modalities: int = 2) -> JoinIndex:
    """Join k lists of unique ids.

    Instances stand in the order of the first list; ``outer`` appends the new ids of the second list in its
    order, and so on.

    Args:
        lists: k arrays of (rows_m,) Arrow large_string, each unique and without nulls.
        how: ``inner`` keeps ids that every list has, ``outer`` those that ``min_modalities`` or more have.
        min_modalities: used by ``outer`` only.
    """
    first = lists[0]
    if all(other.equals(first) for other in lists[1:]):
        # outer with a single list and a higher minimum keeps none, as the general path would
        kept = len(first) if how == "inner" or len(lists) >= min_modalities else 0
        positions = None if kept else np.full(len(first), -1, dtype=np.int64)
        return JoinIndex(first[:kept], (positions,) * len(lists), np.ones((kept, len(lists)), dtype=np.bool_))
    universe = first
    if how == "outer":
        for other in lists[1:]:
            new = pc.invert(pc.is_in(other, value_set=universe))
            universe = pa.concat_arrays([universe, other.filter(new)])
    rows = np.stack([rows_of(ids, universe) for ids in lists], axis=1)
    present = rows >= 0
    least = len(lists) if how == "inner" else min_modalities
    keep = present.sum(axis=1) >= least
    kept_rows, present = rows[keep], present[keep]
    positions_of = []
    for column, ids in enumerate(lists):
        position = np.full(len(ids), -1, dtype=np.int64)
        has = present[:, column]
        position[kept_rows[has, column]] = np.flatnonzero(has)
        positions_of.append(position)
    identity = np.arange(len(present))
    return JoinIndex(
        universe.filter(pa.array(keep)),
        tuple(None if np.array_equal(position, identity) else position for position in positions_of),
        present,
    )
