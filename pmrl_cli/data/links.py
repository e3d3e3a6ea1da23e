"""Which instances belong together: those that show the same thing, and those that are not independent.

Instances of which a modality holds equal vectors, or that have one value in the column of ``--match``, show the same
thing: none is a wrong answer for another. Instances of one ``--group`` are not independent, and what shows the same
thing is not either: such instances stay on one side of every split, and are drawn together for intervals. Both are
equivalence relations, the connected components of these links.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pmrl_cli.data.columns import codes_of, group_column
from pmrl_cli.data.dataset import Dataset
from pmrl_cli.data.repeats import repeats_of

__all__ = ["Links", "components", "join_items", "links_of", "sentences_of"]

Numbers = npt.NDArray[np.int64]

MOST_SHARE = 0.1
"""Of all instances that equal vectors may join to one component. Common vectors join what rare ones do not, so the
most frequent are not followed, as far as this needs: a data set that is one component cannot be split."""

_FEW = 10
"""Instances that may always be joined."""


class Links(NamedTuple):
    """Components of a data set, numbered from 0 on in the order of their first instances.

    Args:
        same: (n,) int64, equal for instances that show the same thing.
        dependent: (n,) int64, equal for instances that are not independent.
        not_followed: of a vector that more rows hold, instances were not joined by it; None: all joined theirs.
    """

    same: Numbers
    dependent: Numbers
    not_followed: int | None


def links_of(dataset: Dataset, *, match: str | None = None, group: str | None = None) -> Links:
    """Return what of a data set belongs together.

    Args:
        dataset: whose vectors are hashed, if they are not yet.
        match: side column; instances of equal value show the same thing. A null is no value.
        group: side column; instances of equal value are not independent.

    Raises: UsageError if there is no such column.
    """
    items = [found.items for found in repeats_of(dataset).values()]
    named = [codes_of(dataset, match)] if match is not None else []
    same, not_followed = join_items(len(dataset), items, named)
    dependent = same
    if group is not None:
        dependent = components(len(dataset), [same, codes_of(dataset, group)])
    return Links(same, dependent, not_followed)


def join_items(count: int, items: Sequence[Numbers], named: Sequence[Numbers]) -> tuple[Numbers, int | None]:
    """Return the components of instances that share an item or a class, and what was not followed, as in ``Links``.

    Args:
        count: n.
        items: each (n,) of a modality, -1 where it is absent: see ``Repeats``.
        named: each (n,) classes that are always followed, -1 for none.
    """
    counts = [np.bincount(one[one >= 0], minlength=1) for one in items]

    def joined(most: int) -> Numbers:
        rare = [
            np.where((one >= 0) & (held[one] > 1) & (held[one] <= most), one, -1)
            for one, held in zip(items, counts, strict=True)
        ]
        return components(count, [*named, *rare])

    sizes = np.unique(np.concatenate([held[held > 1] for held in counts]))
    allowed = max(_FEW, int(MOST_SHARE * count), _largest(joined(0)))
    same, not_followed = joined(int(sizes[-1]) if len(sizes) else 0), None
    if _largest(same) > allowed:
        low, high = 0, len(sizes) - 1  # the largest component grows with what is followed: bisect
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if _largest(joined(int(sizes[middle]))) <= allowed else (low, middle)
        not_followed = int(sizes[low - 1]) if low else 1
        same = joined(not_followed)
    return same, not_followed


def sentences_of(dataset: Dataset, *, match: str | None = None, group: str | None = None) -> list[str]:
    """Return what is repeated in a data set and what of it stays together, one sentence each.

    Args:
        dataset: whose vectors are hashed, if they are not yet.
        match: as for ``links_of``.
        group: likewise; None is the column ``group``, where there is one.
    """
    group = group_column(dataset, group)
    repeated = [text for name, found in repeats_of(dataset).items() if (text := found.sentence(name))]
    links = links_of(dataset, match=match, group=group)
    largest = np.bincount(links.dependent, minlength=1).max()
    sentences = [f"{text}." for text in repeated]
    if links.not_followed is not None:
        sentences.append(
            f"vectors that more than {links.not_followed:,} rows hold are not kept together: they would join more"
            f" than {MOST_SHARE:.0%} of all instances."
        )
    if largest > 1:
        reasons = [f"one {name!r}" for name in (group, match) if name is not None]
        reasons += ["equal vectors"] if links.same.max() + 1 < len(links.same) and repeated else []
        sentences.append(
            f"instances of {' or '.join(reasons)} stay on one side of the split: {links.dependent.max() + 1:,} parts,"
            f" the largest of {largest:,}."
        )
    return sentences


def _largest(numbers: Numbers) -> int:
    return int(np.bincount(numbers, minlength=1).max())


def components(count: int, classes: Sequence[Numbers]) -> Numbers:
    """Return the connected components of instances that share a class, in the order of their first instances.

    Args:
        count: n.
        classes: each (n,) from 0 on: instances of equal number belong together; -1 is no class.

    Returns: (n,) int64.
    """
    root = np.arange(count)
    members = [np.flatnonzero(one >= 0) for one in classes]
    moved = True
    while moved:
        before = root.copy()
        for one, rows in zip(classes, members, strict=True):
            if not len(rows):
                continue
            number = one[rows]
            least = np.full(int(number.max()) + 1, count)
            np.minimum.at(least, number, root[rows])
            np.minimum.at(root, root[rows], least[number])  # the whole of a component moves with its root
            root = root[root]
        while not np.array_equal(root, shorter := root[root]):
            root = shorter
        moved = not np.array_equal(root, before)
    numbers: Numbers = np.unique(root, return_inverse=True)[1]
    return numbers
