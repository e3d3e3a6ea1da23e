"""The state of a pass over the data: bounded, additive, and the same whatever the division into states.

Whoever sees an instance adds it: its numbers to the summaries, its vectors to sums, to the joint moments if it is
of their sample, and to the reservoir if its hash is among the smallest. Two states of disjoint instances merge to
the state of all of them, to float64 rounding. Everything ``diagnose`` reports follows from one state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from pmrl_cli.data.dataset import Dataset
from pmrl_cli.data.ids import hash_ids, hash_values
from pmrl_cli.data.split import column_of, group_keys
from pmrl_cli.diagnosis.instances import InstanceStatistics, instance_statistics, pairs_of
from pmrl_cli.diagnosis.joint import JointMoments
from pmrl_cli.diagnosis.reservoir import NO_LABEL, Reservoir
from pmrl_cli.diagnosis.stored import take
from pmrl_cli.diagnosis.summaries import Summaries
from pmrl_cli.errors import DataError, Place, StateError
from pmrl_cli.retrieval.batches import Batch

__all__ = ["MOMENTS", "RESERVOIR", "Columns", "Header", "State", "check_pairs"]

RESERVOIR = 4096
MOMENTS = 2**16
"""Instances in the joint moments at most: they cost d x d a pair, and at 20 instances a column more add little."""

_GROUPS = 2**16  # group hashes kept: up to so many groups are counted exactly, more within 1 %


@dataclass(frozen=True)
class Header:
    """What a state is about; only states that agree in all of it merge.

    Args:
        names: modalities, in order.
        dims: columns of each in the space that is diagnosed.
        columns: columns of each in the files (before a model).
        group: side column of groups, or None.
        label: side column of labels, or None.
        seed: of the hashes.
        reservoir: instances of the reservoir.
        moments: instances in the joint moments at most.
        model: digest of the model the vectors come from; empty for none.
    """

    names: tuple[str, ...]
    dims: tuple[int, ...]
    columns: tuple[int, ...]
    group: str | None
    label: str | None
    seed: int
    reservoir: int
    moments: int
    model: str = ""

    @property
    def shared(self) -> bool:
        """Whether the modalities can share a space: they have equally many columns."""
        return len(set(self.dims)) == 1

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what ``as_dict`` gave."""
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        return cls(**fields)


class State:
    """What a pass has seen.

    Args:
        header: what it is about.

    Attributes:
        instances: with two modalities or more.
        counts: (K, K) instances that have both; on the diagonal those that have one, of these instances.
        sums: per modality (K, d_m): sums of its unit vectors over the instances that have modality b too.
        summaries: of the numbers of ``numbers_of``.
        moments: joint second moments.
        reservoir: the sample.
    """

    def __init__(self, header: Header) -> None:
        self.header = header
        k = len(header.names)
        self.instances = 0
        self.counts = np.zeros((k, k), dtype=np.int64)
        self.sums = [np.zeros((k, dim)) for dim in header.dims]
        lows, highs = _ranges(k)
        self.summaries = Summaries(lows, highs, grouped=header.group is not None)
        self.moments = JointMoments(header.dims, limit=header.moments, seed=header.seed)
        self.reservoir = Reservoir(header.dims, header.reservoir)
        self._groups: npt.NDArray[np.uint64] = np.zeros(0, dtype=np.uint64)

    @classmethod
    def of(cls, dataset: Dataset, header: Header) -> Self:
        """Return the state of all instances of a data set that have two modalities or more."""
        state = cls(header)
        for block in dataset.blocks(np.flatnonzero(dataset.present.sum(1) >= 2)):
            assert isinstance(block, np.ndarray)
            state.add(dataset, block)
        return state

    @property
    def groups(self) -> int:
        """Independent units: groups, or instances where there are no groups."""
        if self.header.group is None:
            return self.instances
        if len(self._groups) <= _GROUPS:
            return len(self._groups)
        # The k-th smallest of n uniform hashes lies near k / n (Bar-Yossef et al., RANDOM 2002).
        return round(_GROUPS / (float(self._groups[_GROUPS]) / 2.0**64))

    def add(self, dataset: Dataset, rows: npt.NDArray[np.int64]) -> None:
        """Add instances of a data set, all with two modalities or more."""
        ids = dataset.ids.take(rows)
        hashes = hash_ids(ids, self.header.seed)
        keys = hashes if self.header.group is None else _group_hashes(dataset, rows, self.header)
        present = np.ascontiguousarray(dataset.present[rows])
        vectors = [_unit(features.read(rows)) * present[:, [m]] for m, features in enumerate(dataset.modalities)]
        self.instances += len(rows)
        has = present.astype(np.float64)
        self.counts += (has.T @ has).astype(np.int64)
        for m, vector in enumerate(vectors):
            self.sums[m] += _partner_sums(has, vector)
        if self.header.shared:
            stacked = torch.from_numpy(np.stack(vectors, axis=1))
            batch = Batch(rows, stacked, torch.from_numpy(present))
            self.summaries.add(numbers_of(instance_statistics(batch), present), keys)
        self.moments.add(vectors, present, keys)
        chosen = self.reservoir.candidates(keys)
        if len(chosen):
            self.reservoir.add(
                keys[chosen],
                hashes[chosen],
                _label_hashes(dataset, rows[chosen], self.header),
                np.array(ids.take(chosen).to_pylist(), dtype=object),
                present[chosen],
                [vector[chosen] for vector in vectors],
            )
        if self.header.group is not None:
            self._add_groups(keys)

    def _add_groups(self, keys: npt.NDArray[np.uint64]) -> None:
        self._groups = np.unique(np.concatenate([self._groups, keys]))[: _GROUPS + 1]

    def merge(self, other: State, *, name: str = "the other") -> None:
        """Add the instances another state has seen.

        Args:
            other: of other instances; it is not changed.
            name: of the other, for errors.

        Raises: StateError if the two are not about the same, or share an instance.
        """
        mine, theirs = self.header.as_dict(), other.header.as_dict()
        for field, value in mine.items():
            if value != theirs[field]:
                what = "states do not fit together"
                raise StateError(
                    what,
                    at=Place(name),
                    found=f"{field} {theirs[field]!r}",
                    expected=f"{value!r} as in the first",
                    next_step="Make all states with the same options.",
                )
        self.reservoir.merge(other.reservoir, name=name)
        self.instances += other.instances
        self.counts += other.counts
        for mine_of, theirs_of in zip(self.sums, other.sums, strict=True):
            mine_of += theirs_of
        self.summaries.merge(other.summaries)
        self.moments.merge(other.moments)
        self._add_groups(other._groups)

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return everything but the header, by name."""
        parts: dict[str, Mapping[str, npt.NDArray[np.generic]]] = {
            "summaries": self.summaries.arrays(),
            "moments": self.moments.arrays(),
            "reservoir": self.reservoir.arrays(),
        }
        return {
            "instances": np.array([self.instances]),
            "counts": self.counts,
            "groups": self._groups,
            **{f"sums.{m}": sums for m, sums in enumerate(self.sums)},
            **{f"{part}.{name}": array for part, arrays in parts.items() for name, array in arrays.items()},
        }

    @classmethod
    def from_arrays(cls, header: Header, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Return the state that ``arrays`` came from.

        Raises: ValueError for arrays that are of no such state.
        """
        state = cls(header)
        state.instances = int(take(arrays, "instances", np.int64, (1,))[0])
        state.counts = take(arrays, "counts", np.int64, state.counts.shape)
        state._groups = take(arrays, "groups", np.uint64, (None,))
        state.sums = [take(arrays, f"sums.{m}", np.float64, sums.shape) for m, sums in enumerate(state.sums)]
        for part in ("summaries", "moments", "reservoir"):
            own = {name.removeprefix(f"{part}."): a for name, a in arrays.items() if name.startswith(f"{part}.")}
            getattr(state, part).load(own)
        return state


def check_pairs(dataset: Dataset) -> None:
    """Refuse what has nothing to be aligned.

    Raises: DataError unless there are two modalities or more and an instance that has two.
    """
    if len(dataset.names) < 2:
        what = "too few modalities"
        raise DataError(
            what,
            found=", ".join(dataset.names) or "none",
            expected="two or more",
            next_step="Name a file for each modality.",
        )
    if not (dataset.present.sum(1) >= 2).any():
        what = "no instance in two modalities"
        raise DataError(
            what,
            found=f"none of {len(dataset)} has two modalities",
            expected="at least one",
            next_step="Check with pmrl inspect that the ids of the files agree.",
        )


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


def _ranges(k: int) -> tuple[list[float], list[float]]:
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


def _unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Bring vectors to unit length, in place; one without length stays zero."""
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    vectors /= np.where(lengths == 0, 1, lengths)[:, None]
    return vectors


def _partner_sums(has: npt.NDArray[np.float64], vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    if has.all():  # the usual case, and much cheaper
        return np.broadcast_to(vectors.sum(0, dtype=np.float64), (has.shape[1], vectors.shape[1]))
    sums: npt.NDArray[np.float64] = has.T @ vectors.astype(np.float64)
    return sums


def _group_hashes(dataset: Dataset, rows: npt.NDArray[np.int64], header: Header) -> npt.NDArray[np.uint64]:
    column = {header.group: column_of(dataset, header.group).take(rows)} if header.group else {}
    part = Dataset(dataset.ids.take(rows), (), dataset.present[rows], column)
    return hash_ids(group_keys(part, header.group), header.seed)


def _label_hashes(dataset: Dataset, rows: npt.NDArray[np.int64], header: Header) -> npt.NDArray[np.uint64]:
    if header.label is None:
        return np.full(len(rows), NO_LABEL)
    return hash_values(column_of(dataset, header.label).take(rows), header.seed)
