"""Bootstrap intervals over groups of queries, with the gallery held fixed.

Instances of one group (captions of one image, trials with one object) are not independent: groups are drawn, and
every metric of every direction is computed from the same draws, so that means over directions have intervals too.
The gallery is not resampled: a copy of the partner in the gallery would be a tie that the data do not have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "Sample", "interval", "resample", "weighted_median"]

Array = npt.NDArray[np.float64]

_DRAWS_AT_ONCE = 64


class Sample(NamedTuple):
    """The queries of one direction.

    Args:
        groups: (q,) int64, the group of each query, counted from 0.
        means: per-query values (q,) of the metrics that are means, by metric.
        medians: the same of the metrics that are medians.
    """

    groups: npt.NDArray[np.int64]
    means: Mapping[str, Array]
    medians: Mapping[str, Array] = {}

    def values(self) -> dict[str, float]:
        """Return each metric."""
        return {
            **{metric: float(values.mean()) for metric, values in self.means.items()},
            **{metric: float(np.median(values)) for metric, values in self.medians.items()},
        }


def resample(samples: Mapping[str, Sample], groups: int, *, draws: int, seed: int) -> dict[tuple[str, str], Array]:
    """Return every metric of every direction under resampled groups.

    Args:
        samples: by direction; at least one query each.
        groups: number of groups in all.
        draws: resamples.
        seed: of the draws.

    Returns: (draws,) by direction and metric; a draw without a query of the direction is NaN.
    """
    counts = {name: np.bincount(sample.groups, minlength=groups) for name, sample in samples.items()}
    sums = {
        (name, metric): np.bincount(sample.groups, values, groups)
        for name, sample in samples.items()
        for metric, values in sample.means.items()
    }
    order = {
        (name, metric): np.argsort(values, kind="stable")
        for name, sample in samples.items()
        for metric, values in sample.medians.items()
    }
    found: dict[tuple[str, str], list[Array]] = {key: [] for key in [*sums, *order]}
    for weights in _weights(groups, draws, seed):
        for (name, metric), total in sums.items():
            count = weights @ counts[name]
            mean = np.divide(weights @ total, count, out=np.full(len(count), np.nan), where=count > 0)
            found[name, metric].append(mean)
        for (name, metric), ascending in order.items():
            sample = samples[name]
            repeated = weights[:, sample.groups[ascending]]
            found[name, metric].append(weighted_median(sample.medians[metric][ascending], repeated))
    return {key: np.concatenate([np.empty(0), *parts]) for key, parts in found.items()}


def _weights(groups: int, draws: int, seed: int) -> Iterator[Array]:
    generator = np.random.default_rng(seed)
    for start in range(0, draws, _DRAWS_AT_ONCE):
        size = min(_DRAWS_AT_ONCE, draws - start)
        drawn = generator.integers(groups, size=(size, groups)) + groups * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * groups).reshape(size, groups).astype(np.float64)


def weighted_median(ascending: Array, weights: Array) -> Array:
    """Return the medians of values repeated by integer weights.

    Args:
        ascending: (q,) values in ascending order.
        weights: (draws, q) non-negative integers.

    Returns: (draws,), NaN where all weights are zero.
    """
    reached = np.cumsum(weights, axis=1)
    half = reached[:, -1:] / 2
    last = len(ascending) - 1
    lower = np.minimum((reached < half).sum(1), last)
    upper = np.minimum((reached <= half).sum(1), last)
    return np.where(half[:, 0] > 0, (ascending[lower] + ascending[upper]) / 2, np.nan)


def interval(draws: Array) -> tuple[float, float] | None:
    """Return the middle 95 % of the draws, None where there are too few to say (under 100)."""
    valid = draws[~np.isnan(draws)]
    if len(valid) < 100:
        return None
    low, high = np.quantile(valid, [0.025, 0.975])
    return float(low), float(high)
