"""Bootstrap intervals over groups of queries, with the gallery held fixed.

Instances of one group (captions of one image, trials with one object) are not independent: groups are drawn, and
every metric of every direction is computed from the same draws, so that means over directions have intervals too.
The gallery is not resampled: a copy of the partner in the gallery would be a tie that the data do not have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pmrl_cli.array_types import Array

__all__ = [
    "DRAWS",
    "Array",
    "Measured",
    "Sample",
    "Units",
    "interval",
    "mean_over",
    "resample",
    "weighted_median",
    "weights_of",
]


DRAWS = 1000
"""Bootstrap resamples behind every interval."""

_DRAWS_AT_ONCE = 64


class Measured(NamedTuple):
    """A metric: its value, what a random order gives, and its bootstrap draws."""

    value: float
    chance: float
    draws: Array

    def as_dict(self) -> dict[str, Any]:
        """Return value, chance and 95 % interval; the interval is None where there are too few draws."""
        ci = interval(self.draws)
        return {"value": self.value, "chance": self.chance, "ci": None if ci is None else list(ci)}

    @classmethod
    def mean(cls, parts: Sequence[Measured]) -> Measured:
        """Return the mean of a metric over directions (at least one)."""
        return cls(
            float(np.mean([part.value for part in parts])),
            float(np.mean([part.chance for part in parts])),
            np.mean([part.draws for part in parts], axis=0),
        )


def mean_over(directions: Sequence[Mapping[str, Measured]]) -> dict[str, Measured] | None:
    """Return the mean over directions of each metric (over those that have it), None without a direction."""
    names = dict.fromkeys(name for direction in directions for name in direction)
    means = {
        name: Measured.mean([direction[name] for direction in directions if name in direction]) for name in names
    }
    return means or None


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


class Units(NamedTuple):
    """What the bootstrap draws: instances that are not independent are drawn together.

    Args:
        groups: (n,) number of the group of each instance that is measured, from 0 on; -1 for others.
        number: groups.
        draws: resamples; 0 where there is but one group.
        seed: of the draws.
    """

    groups: npt.NDArray[np.int64]
    number: int
    draws: int
    seed: int

    @classmethod
    def of(
        cls, dependent: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], seed: int, draws: int = DRAWS
    ) -> Units:
        """Return the groups of some rows of n instances, of which those of equal (n,) ``dependent`` are one."""
        numbers, positions = np.unique(dependent[rows], return_inverse=True)
        groups = np.full(len(dependent), -1)
        groups[rows] = positions
        return cls(groups, len(numbers), draws if len(numbers) > 1 else 0, seed)

    def resample(self, samples: Mapping[str, Sample]) -> dict[tuple[str, str], Array]:
        """Return the draws of every metric of every sample."""
        return resample(samples, self.number, draws=self.draws, seed=self.seed)

    def measure(
        self, samples: Mapping[str, Sample], chances: Mapping[str, Mapping[str, float]]
    ) -> dict[str, dict[str, Measured]]:
        """Return every metric of every sample beside its chance value, each by name."""
        drawn = self.resample(samples)
        return {
            name: {
                one: Measured(value, chances[name][one], drawn[name, one]) for one, value in sample.values().items()
            }
            for name, sample in samples.items()
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
    number = {name: column for column, name in enumerate(samples)}
    counts = np.zeros((groups, len(samples)))
    for name, column in number.items():
        counts[:, column] = np.bincount(samples[name].groups, minlength=groups)
    means = [(name, metric) for name, sample in samples.items() for metric in sample.means]
    sums = np.zeros((groups, len(means)))
    for column, (name, metric) in enumerate(means):
        sums[:, column] = np.bincount(samples[name].groups, samples[name].means[metric], groups)
    order = {
        (name, metric): np.argsort(values, kind="stable")
        for name, sample in samples.items()
        for metric, values in sample.medians.items()
    }
    of_mean = [number[name] for name, _ in means]
    drawn_means = [np.empty((0, len(means)))]
    found: dict[tuple[str, str], list[Array]] = {key: [] for key in order}
    for weights in weights_of(groups, draws, seed):
        count = (weights @ counts)[:, of_mean]
        drawn_means.append(np.divide(weights @ sums, count, out=np.full(count.shape, np.nan), where=count > 0))
        for (name, metric), ascending in order.items():
            sample = samples[name]
            repeated = weights[:, sample.groups[ascending]]
            found[name, metric].append(weighted_median(sample.medians[metric][ascending], repeated))
    return {
        **dict(zip(means, np.concatenate(drawn_means).T.copy(), strict=True)),
        **{key: np.concatenate([np.empty(0), *parts]) for key, parts in found.items()},
    }


def weights_of(groups: int, draws: int, seed: int) -> Iterator[Array]:
    """Yield how often each group is drawn, some draws at a time: (b, groups), of as many groups as there are."""
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
