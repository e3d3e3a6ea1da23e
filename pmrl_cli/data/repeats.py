"""Equal vectors: which rows of a modality hold the same one, by a 64-bit hash of each row.

Rows are compared as float16 would store them, so that a vector and its float16 copy are equal: two values are equal
if they round to the same of 11 significant bits, a relative difference of at most 2^-11 (.05 %). A vector whose
largest value float16 cannot hold (beyond 65,504, or under 2^-14) is rounded to 11 bits of its own instead, and one of
fewer than ``EXACT_COLUMNS`` columns is compared as it is: so few rounded values agree by accident.

What is kept is 8 bytes a row and modality. Two different vectors of ten million have the same hash with probability
3e-6.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pmrl_cli.data.dataset import Dataset, FloatArray

__all__ = ["Repeats", "Template", "hash_rows", "hashes_of", "repeats_among", "repeats_of", "with_hashes"]

Hashes = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.int64]

EXACT_COLUMNS = 8

TEMPLATE_ROWS = 10
TEMPLATE_SHARE = 0.01
TEMPLATE_TIMES = 10
SPLIT_SHARE = 0.1
"""A vector is a template (a filler, a default, "no caption") and not a thing that its rows share, if more than
``TEMPLATE_ROWS`` rows hold it and they are more than ``SPLIT_SHARE`` of those that have the modality, which no part
of a split could take whole; or more than ``TEMPLATE_SHARE`` of them and ``TEMPLATE_TIMES`` as many as hold the
modality's median vector, which is not how this modality repeats."""

_ROWS = 256  # hashed at once: they stay in the cache of a core
_MINUS_ZERO = 0x8000


class Template(NamedTuple):
    """A vector that stands for nothing in particular.

    Args:
        rows: how many hold it.
        first: the first of them.
    """

    rows: int
    first: int


@dataclass(frozen=True)
class Repeats:
    """The equal vectors of one modality.

    Args:
        rows: that have the modality.
        different: vectors among them.
        items: (n,) int64 from 0 on: rows of equal number hold one vector. The rows of a template have a number of
            their own each; -1 where the modality is absent.
        templates: the most frequent first.
    """

    rows: int
    different: int
    items: Numbers
    templates: tuple[Template, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return rows, different vectors and the rows of each template: JSON values."""
        return {
            "rows": self.rows,
            "different": self.different,
            "templates": [{"rows": one.rows, "first_row": one.first} for one in self.templates],
        }

    def sentence(self, name: str) -> str | None:
        """Return "600 rows of image hold 120 different vectors", and its templates; None where no row repeats."""
        if self.different == self.rows:
            return None
        text = f"{self.rows:,} rows of {name} hold {self.different:,} different vector{'s' * (self.different > 1)}"
        if self.templates:
            most = self.templates[0].rows
            text += (
                f", one of them in {most:,} rows: a template"
                if len(self.templates) == 1
                else f", {len(self.templates):,} of them in up to {most:,} rows each: templates"
            )
        return text


def hash_rows(values: FloatArray) -> Hashes:
    """Return a 64-bit hash of each row, never 0; equal for rows that are equal as the module says.

    Args:
        values: (B, d) float32; the hash of a row with NaN says nothing.
    """
    hashes = np.empty(len(values), dtype=np.uint64)
    for start in range(0, len(values), _ROWS):
        piece = slice(start, start + _ROWS)
        with np.errstate(invalid="ignore"):  # a signalling NaN, whose row is bad anyway
            hashes[piece] = _hash(_words(values[piece] + np.float32(0)))  # -0 is 0
    return np.maximum(hashes, np.uint64(1))


def _words(values: FloatArray) -> Hashes:
    """Return the (B, w) 64-bit words that rows are compared by."""
    rows, columns = values.shape
    if columns < EXACT_COLUMNS:
        return values.view(np.uint32).astype(np.uint64)
    largest = np.abs(values).max(axis=1)
    apart = (largest > np.finfo(np.float16).max) | (largest < 2.0**-14)
    with np.errstate(over="ignore"):
        halves = values.astype(np.float16)
    padded = np.zeros((rows, -(-columns // 4) * 4), dtype=np.uint16)
    padded[:, :columns] = halves.view(np.uint16)
    padded[padded == _MINUS_ZERO] = 0  # what a small negative value rounds to
    words = padded.view(np.uint64)
    if apart.any():
        words = words.copy()
        words[apart] = _own_scale(values[apart], words.shape[1])
    return words


def _own_scale(values: FloatArray, width: int) -> Hashes:
    """Return words of rows that float16 cannot hold: their bits rounded to 11 of significand, folded to the width."""
    bits = values.view(np.uint32).astype(np.uint64)
    rounded = (bits + np.uint64(1 << 12)) >> np.uint64(13)
    words = np.zeros((len(values), width), dtype=np.uint64)
    for column in range(values.shape[1]):
        place = column // 4
        words[:, place] = _mixed(words[:, place] ^ rounded[:, column])
    return words


def _mixed(words: Hashes) -> Hashes:
    """Return each word after the finaliser of SplitMix64, a bijection (Steele, Lea and Flood, 2014)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _hash(words: Hashes) -> Hashes:
    keys = _mixed(np.arange(1, words.shape[1] + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    summed: Hashes = _mixed(words ^ keys).sum(axis=1, dtype=np.uint64)
    return _mixed(summed + np.uint64(words.shape[1]))


def with_hashes(dataset: Dataset) -> Dataset:
    """Return the data set with the hashes of its vectors; itself where it has them. One pass over the vectors."""
    return dataset if dataset.hashes is not None else replace(dataset, hashes=hashes_of(dataset))


def hashes_of(dataset: Dataset, rows: Numbers | None = None) -> Hashes:
    """Return the hashes of the vectors of a data set: (n, K), 0 where absent.

    Args:
        dataset: whose vectors are read, unless it has their hashes.
        rows: (n,) ascending, the instances asked for; None for all.
    """
    if dataset.hashes is not None:
        return dataset.hashes if rows is None else dataset.hashes[rows]
    hashes = np.zeros((len(dataset) if rows is None else len(rows), len(dataset.names)), dtype=np.uint64)
    start = 0
    for block in dataset.blocks(rows):
        present = dataset.present[block]
        stop = start + len(present)
        for m, features in enumerate(dataset.modalities):
            hashes[start:stop, m] = hash_rows(features.read(block))
        hashes[start:stop][~present] = 0
        start = stop
    return hashes


def repeats_of(dataset: Dataset) -> Mapping[str, Repeats]:
    """Return the equal vectors of each modality."""
    hashes = hashes_of(dataset)
    return {name: repeats_among(hashes[:, m], dataset.present[:, m]) for m, name in enumerate(dataset.names)}


def repeats_among(hashes: Hashes, present: npt.NDArray[np.bool_]) -> Repeats:
    """Return the equal vectors of one modality.

    Args:
        hashes: (n,) of its rows.
        present: (n,) those that hold a vector.
    """
    rows = np.flatnonzero(present)
    _, first, inverse, counts = np.unique(hashes[rows], return_index=True, return_inverse=True, return_counts=True)
    items = np.full(len(hashes), -1, dtype=np.int64)
    items[rows] = inverse
    filler = _are_templates(counts, len(rows))
    templates = sorted((Template(int(counts[c]), int(rows[first[c]])) for c in np.flatnonzero(filler)), reverse=True)
    if templates:
        apart = rows[filler[inverse]]
        items[apart] = len(counts) + np.arange(len(apart))
        items[rows] = np.unique(items[rows], return_inverse=True)[1]
    return Repeats(len(rows), len(counts), items, tuple(templates))


def _are_templates(counts: Numbers, rows: int) -> npt.NDArray[np.bool_]:
    if not rows:
        return np.zeros(0, dtype=np.bool_)
    unusual = (counts > TEMPLATE_SHARE * rows) & (counts > TEMPLATE_TIMES * np.median(counts))
    most: npt.NDArray[np.bool_] = (counts > TEMPLATE_ROWS) & ((counts > SPLIT_SHARE * rows) | unusual)
    return most
