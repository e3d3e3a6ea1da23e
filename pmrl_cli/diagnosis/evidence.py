"""What statistics are computed from: a state, its sample, and what follows from both, worked out once when asked."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from pmrl_cli.data.dataset import Dataset
from pmrl_cli.diagnosis.mispairing import Mispairs
from pmrl_cli.diagnosis.state.accumulate import State
from pmrl_cli.diagnosis.state.reservoir import ReservoirSample
from pmrl_cli.diagnosis.state.second_moments import MomentTotals, half_of
from pmrl_cli.retrieval.batches import Batch
from pmrl_cli.stats.instances import InstanceStatistics, instance_statistics, pairs_of, shuffle_pairs

__all__ = ["CORE", "SHUFFLES", "Evidence"]

Result = TypeVar("Result")

SHUFFLES = 8
"""Shuffled copies of the reservoir that the null is made of."""

CORE = 2400
"""Instances of the reservoir that what takes many products of all with all is measured on: two halves of 1,000."""


class Evidence:
    """What is known of some instances.

    Args:
        state: what a pass has accumulated.
        dataset: where it is given: in the order of its files.
        training: how the model that made the vectors was trained (``pmrl.training/1``), if one did.
    """

    def __init__(
        self, state: State, dataset: Dataset | None = None, training: Mapping[str, Any] | None = None
    ) -> None:
        self.state, self.dataset, self.training = state, dataset, training
        self._results: dict[Hashable, Any] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities."""
        return self.state.header.names

    @cached_property
    def has(self) -> frozenset[str]:
        """What there is of what statistics need: see ``declared.Need``."""
        header = self.state.header
        found = {
            "space": header.shared,
            "model": header.shared and self.training is not None,
            "labels": header.label is not None,
            "rows": self.dataset is not None,
        }
        return frozenset(name for name, there in found.items() if there)

    @cached_property
    def sample(self) -> ReservoirSample:
        """The reservoir."""
        return self.state.reservoir.chosen()

    @cached_property
    def batch(self) -> Batch:
        """The reservoir as unit vectors of one space."""
        return self.sample.batch()

    @cached_property
    def core(self) -> ReservoirSample:
        """The first of the reservoir, ``CORE`` at most."""
        return self.state.reservoir.chosen(CORE)

    @cached_property
    def core_batch(self) -> Batch:
        """The core as unit vectors of one space."""
        size, whole = len(self.core), self.batch
        return Batch(whole.rows[:size], whole.embeddings[:size], whole.present[:size])

    @cached_property
    def half(self) -> npt.NDArray[np.bool_]:
        """(r,) which of the reservoir are in the first half; instances that share a vector are in the same."""
        keys, groups = self.sample.keys, self.sample.groups
        least = np.full(int(groups.max(initial=-1)) + 1, np.iinfo(np.uint64).max, dtype=np.uint64)
        np.minimum.at(least, groups, keys)
        return np.asarray(half_of(least[groups]) == 0)

    @cached_property
    def null(self) -> InstanceStatistics:
        """Statistics of shuffled copies of the reservoir."""
        generator = np.random.default_rng(self.state.header.seed)
        shuffled = [shuffle_pairs(self.batch, self.sample.groups, generator) for _ in range(SHUFFLES)]
        return InstanceStatistics.join([instance_statistics(one) for one in shuffled])

    @cached_property
    def totals(self) -> tuple[MomentTotals, MomentTotals, MomentTotals]:
        """Joint moments of both halves together, of the first and of the second."""
        return self.state.moments.totals(), self.state.moments.totals(0), self.state.moments.totals(1)

    @cached_property
    def mispairs(self) -> Mispairs:
        """What mispaired instances look like here."""
        return Mispairs.of(self.batch, self.names, self.sample.groups)

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """The pairs of modalities that an instance has."""
        return [(a, b) for a, b in pairs_of(len(self.names)) if self.state.counts[a, b]]

    def pair_name(self, pair: tuple[int, int]) -> str:
        """Return ``a|b``."""
        return "|".join(self.names[m] for m in pair)

    def once(self, compute: Callable[..., Result], *subject: Hashable) -> Result:
        """Return what a function makes of the evidence: computed at the first call, shared by all."""
        key = (compute, *subject)
        if key not in self._results:
            self._results[key] = compute(self, *subject)
        found: Result = self._results[key]
        return found
