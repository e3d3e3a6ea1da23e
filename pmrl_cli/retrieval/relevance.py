"""What is right for a query: items of a modality instead of rows, and all that show the same thing.

Rows of a modality that hold equal vectors are one **item**: it asks once, and it is one candidate. Right for the item
x of one modality is every item y of another for which there is an instance with x and an instance with y that are the
same instance, or that match (have one value in the column of ``--match``). This is no equivalence: two images may
share a caption, and each has others that are wrong for the other one.

A query with several right answers is evaluated by the best of them, for ranks, and by all, for precision.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pmrl_cli.array_types import Mask
from pmrl_cli.data.columns import codes_of
from pmrl_cli.data.dataset import Dataset
from pmrl_cli.data.repeats import repeats_of

__all__ = ["Pairs", "Relevance", "Rights"]

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Relevance:
    """Items and matches of some instances.

    Args:
        items: (n, K) int64, equal where rows of a modality are one item; not used where it is absent.
        match: (n,) int64, equal for instances that match.
    """

    items: Numbers
    match: Numbers

    @classmethod
    def of(cls, dataset: Dataset, match: str | None = None) -> Relevance:
        """Return that of a data set: equal vectors are one item, equal values of the column ``match`` match.

        Raises: UsageError if there is no such column.
        """
        items = np.stack([found.items for found in repeats_of(dataset).values()], axis=1)
        number = np.arange(len(dataset))
        if match is not None:
            codes = codes_of(dataset, match)
            number = np.where(codes >= 0, codes, len(dataset) + number)
        return cls(items, number)

    @classmethod
    def of_rows(cls, rows: int, modalities: int) -> Relevance:
        """Return that of instances of which every vector is an item of its own, right for its own instance alone."""
        return cls(np.repeat(np.arange(rows)[:, None], modalities, axis=1), np.arange(rows))

    def take(self, rows: Numbers) -> Relevance:
        """Return that of some of the instances."""
        return Relevance(self.items[rows], self.match[rows])

    def rights(self, source: int | None, target: int, eligible: Mask, present: Mask) -> Rights:
        """Return the queries, candidates and right answers of one direction.

        Args:
            source: modality of the queries; None: all but the target, together.
            target: modality of the candidates.
            eligible: (n,) instances that have both.
            present: (n, K).
        """
        rows = np.flatnonzero(eligible)
        if source is not None:
            asking = self.items[rows, source]
        else:
            others = [m for m in range(present.shape[1]) if m != target]
            together = np.where(present[rows][:, others], self.items[rows][:, others], -1)
            asking = np.unique(together, axis=0, return_inverse=True)[1].reshape(-1)
        return Rights(rows, asking, self.items[rows, target], self.match[rows])


@dataclass(frozen=True)
class Pairs:
    """Right answers of some queries.

    Args:
        queries: (P,) int64, ascending: places among the queries.
        answers: (P,) int64, ascending for each query: places among the candidates.
    """

    queries: Numbers
    answers: Numbers


class Rights:
    """The right answers of one direction.

    Attributes:
        queries: (Q,) int64, ascending: the row that stands for each item that asks, the first that is eligible.
        candidates: (C,) int64, ascending: the same of each item that can be found.
        one_to_one: whether every query has one right answer, in its own row.
    """

    def __init__(self, rows: Numbers, asking: Numbers, found: Numbers, match: Numbers) -> None:
        """Take the (E,) eligible rows, the items on both sides and what matches."""
        self.queries, asks = _numbered(rows, asking)
        self.candidates, answers = _numbered(rows, found)
        _, matches = _numbered(rows, match)
        self.one_to_one = len(self.queries) == len(self.candidates) == int(matches.max(initial=-1)) + 1 == len(rows)
        if not self.one_to_one:
            self._of_query = _lists(asks, matches, len(self.queries))
            self._of_match = _lists(matches, answers, int(matches.max(initial=-1)) + 1)

    def pairs(self, queries: Numbers) -> Pairs:
        """Return the right answers of some of the queries, by their places, as places among those given."""
        if self.one_to_one:
            return Pairs(np.arange(len(queries)), queries)
        places, matches = _expanded(np.arange(len(queries)), queries, self._of_query)
        places, answers = _expanded(places, matches, self._of_match)
        both = np.unique(places * len(self.candidates) + answers)
        return Pairs(both // len(self.candidates), both % len(self.candidates))

    def counts(self, queries: Numbers) -> Numbers:
        """Return (q,) how many right answers some of the queries have."""
        if self.one_to_one:
            return np.ones(len(queries), dtype=np.int64)
        counts = np.empty(len(queries), dtype=np.int64)
        for start in range(0, len(queries), _AT_ONCE):
            piece = queries[start : start + _AT_ONCE]
            counts[start : start + len(piece)] = np.bincount(self.pairs(piece).queries, minlength=len(piece))
        return counts


_AT_ONCE = 4096

_Lists = tuple[Numbers, Numbers]
"""Starts (m + 1,) and members, of m lists of numbers."""


def _numbered(rows: Numbers, values: Numbers) -> tuple[Numbers, Numbers]:
    """Return the first row of each value, ascending, and the place of each value's first row among them."""
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty(len(first), dtype=np.int64)
    place[order] = np.arange(len(first))
    return rows[first[order]], place[inverse]


def _lists(keys: Numbers, values: Numbers, count: int) -> _Lists:
    """Return the distinct values of each of ``count`` keys."""
    width = int(values.max(initial=-1)) + 1
    both = np.unique(keys * width + values)
    starts = np.searchsorted(both, np.arange(count + 1) * width)
    return starts, both % max(1, width)


def _expanded(places: Numbers, keys: Numbers, lists: _Lists) -> tuple[Numbers, Numbers]:
    """Return, for every member of the list of each key, the place that goes with the key and the member."""
    starts, members = lists
    lengths = starts[keys + 1] - starts[keys]
    ends = np.cumsum(lengths)
    within = np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - lengths, lengths)
    return np.repeat(places, lengths), members[np.repeat(starts[keys], lengths) + within]
