"""Mergeable summaries of bounded per-instance numbers: mean, clustered error and quantiles from fixed memory.

Every number has a known range, so a histogram of fixed bins beats any quantile sketch: it merges exactly, in any
order, and a quantile is off by one bin at most. Groups are what is independent where there are groups: their sums
are kept in a fixed number of clusters chosen by the hash of the group, which leaves the variance of a mean unbiased.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pmrl_cli.array_types import Array
from pmrl_cli.diagnosis.state.header import require_array
from pmrl_cli.stats.instances import InstanceStatistics, pairs_of

__all__ = ["BINS", "Columns", "Summaries", "numbers_of", "ranges_of"]


BINS = 4096
CLUSTERS = 4096


class Summaries:
    """Count, sum, sum of squares and histogram of S numbers per instance.

    Args:
        lows: (S,) least value of each number.
        highs: (S,) greatest value.
        grouped: keep clusters of groups; else every instance is independent.
    """

    def __init__(self, lows: Sequence[float], highs: Sequence[float], *, grouped: bool) -> None:
        size = len(lows)
        self.lows, self.highs = np.asarray(lows, float), np.asarray(highs, float)
        self.count = np.zeros(size, dtype=np.int64)
        self.sum = np.zeros(size)
        self.squares = np.zeros(size)
        self.bins = np.zeros((size, BINS), dtype=np.int64)
        self.cluster_count = np.zeros((size, CLUSTERS if grouped else 0), dtype=np.int64)
        self.cluster_sum = np.zeros((size, CLUSTERS if grouped else 0))

    @property
    def grouped(self) -> bool:
        """Whether clusters are kept."""
        return self.cluster_count.shape[1] > 0

    def add(self, values: Array, keys: npt.NDArray[np.uint64]) -> None:
        """Add B instances.

        Args:
            values: (B, S), NaN where an instance has no such number.
            keys: (B,) hash of the group (or the id) of each instance.
        """
        clusters = (keys % np.uint64(CLUSTERS)).astype(np.int64)
        for s, column in enumerate(values.T):
            known = ~np.isnan(column)
            found = column[known]
            self.count[s] += len(found)
            self.sum[s] += found.sum()
            self.squares[s] += found @ found
            place = (found - self.lows[s]) * (BINS / (self.highs[s] - self.lows[s]))
            # Rounding may leave a value a little outside its range.
            self.bins[s] += np.bincount(np.clip(place, 0, BINS - 1).astype(np.int64), minlength=BINS)
            if self.grouped:
                self.cluster_count[s] += np.bincount(clusters[known], minlength=CLUSTERS)
                self.cluster_sum[s] += np.bincount(clusters[known], found, CLUSTERS)

    def merge(self, other: Summaries) -> None:
        """Add the instances another summary has seen."""
        for mine, theirs in zip(self.arrays().values(), other.arrays().values(), strict=True):
            mine += theirs

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the additive arrays by name; they are the state."""
        names = ("count", "sum", "squares", "bins", "cluster_count", "cluster_sum")
        return {name: getattr(self, name) for name in names}

    def load(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take the arrays of a saved summary of the same numbers.

        Raises: ValueError for others.
        """
        for name, array in self.arrays().items():
            array[...] = require_array(arrays, name, array.dtype, array.shape)

    def mean(self, s: int) -> float:
        """Return the mean of number ``s``, NaN of none."""
        return float(self.sum[s] / self.count[s]) if self.count[s] else float("nan")

    def mean_error(self, s: int) -> float | None:
        """Return the standard error of the mean of number ``s``, None with fewer than two independent units."""
        return self.error({s: (1.0, self.mean(s))})

    def error(self, maps: Mapping[int, tuple[float, float]]) -> float | None:
        """Return the standard error of the mean of ``factor * value - shift`` over instances.

        Args:
            maps: by number s, factor and shift; an instance has at most one of these numbers. The mean of the
                mapped values over all of them must be zero.

        Returns: None with fewer than two independent units.
        """
        total = sum(int(self.count[s]) for s in maps)
        if self.grouped:
            sums = np.zeros(CLUSTERS)
            for s, (factor, shift) in maps.items():
                sums += factor * self.cluster_sum[s] - shift * self.cluster_count[s]
            units = int((sum(self.cluster_count[s] for s in maps) > 0).sum())
            squared = float((sums**2).sum())
        else:
            units = total
            squared = sum(
                factor**2 * self.squares[s] - 2 * factor * shift * self.sum[s] + shift**2 * self.count[s]
                for s, (factor, shift) in maps.items()
            )
        if units < 2:
            return None
        return float(np.sqrt(max(squared, 0.0) * units / (units - 1)) / total)

    def quantile(self, numbers: Sequence[int], probability: float) -> float:
        """Return a quantile of some numbers of one range taken together, off by a bin at most; NaN of none."""
        bins, first = self.bins[list(numbers)].sum(0), numbers[0]
        reached = np.cumsum(bins)
        if reached[-1] == 0:
            return float("nan")
        target = probability * reached[-1]
        index = int(np.searchsorted(reached, max(target, 1e-9)))
        inside = (target - reached[index] + bins[index]) / bins[index]
        return float(self.lows[first] + (index + inside) * (self.highs[first] - self.lows[first]) / BINS)


class Columns:
    """Where each number stands among the columns of ``numbers_of``.

    Args:
        k: modalities.

    Attributes:
        rho: columns of rho with 2, 3, .. K modalities.
        signed: column.
        mixed: column.
        load: columns, by modality.
        cosine: columns, in the order of ``pairs_of``.
    """

    def __init__(self, k: int) -> None:
        self.rho = range(k - 1)
        self.signed, self.mixed = k - 1, k
        self.load = range(k + 1, 2 * k + 1)
        self.cosine = range(2 * k + 1, 2 * k + 1 + len(pairs_of(k)))


def ranges_of(k: int) -> tuple[list[float], list[float]]:
    """Return the least and greatest value of each column of ``numbers_of``."""
    pairs = len(pairs_of(k))
    lows = [1 / k] * (k - 1) + [0.0, 0.0] + [0.0] * k + [-1.0] * pairs
    highs = [1.0] * (k - 1) + [1.0, 1.0] + [k**0.5] * k + [1.0] * pairs
    return lows, highs


def numbers_of(found: InstanceStatistics, present: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return the numbers that are summarised, NaN where an instance has none.

    Returns: (B, S): rho by number of modalities (2 .. K), signed, mixed, K loadings, P cosines.
    """
    k = present.shape[1]
    rho = np.full((len(present), k - 1), np.nan)
    rho[np.arange(len(present)), found.number - 2] = found.rho
    return np.concatenate([rho, found.signed[:, None], found.mixed[:, None], found.loading, found.cosine], axis=1)
