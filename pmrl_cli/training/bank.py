"""The bank: the scores of the instances that train and choose, computed once, from which training draws batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from pmrl_cli.data.dataset import Dataset
from pmrl_cli.data.ids import hash_ids
from pmrl_cli.data.split import shard
from pmrl_cli.errors import DataError
from pmrl_cli.files.durable.scratch import Scratch
from pmrl_cli.moments import ColumnMoments, CrossMoments, SecondMoment
from pmrl_cli.projection import FeatureMap, Projection, fit_kernel, fit_projection, inverse_deviation, standardise
from pmrl_cli.world import ALONE, World, collect_arrays, first_arrays

__all__ = ["COMPONENTS", "Bank", "build_bank", "fit_projections", "owners"]

Moments = TypeVar("Moments", ColumnMoments, SecondMoment)

COMPONENTS = 256
"""Principal components kept per modality: more did not help on any set measured, fewer lost where rows are many."""

LANDMARKS = 1024
"""Training instances whose nearness makes a kernel's scores."""

KERNEL_COMPONENTS = 512
"""Kernel components per modality: twice the linear ones, as a nonlinear map needs more directions; fewer where many
modalities would make the closed form's one eigen-decomposition slow (``_STACKED``)."""

_STACKED = 1536

AXES_ROWS = 4096
"""Kernels, and modalities with more columns than this, find their principal axes on this many training rows chosen
by hash, so that no state grows beyond AXES_ROWS x d."""


@dataclass(frozen=True)
class Bank:
    """Scores of the instances that this process holds, and the moments of all that train.

    Args:
        rows: (n,) row numbers in the data set, ascending.
        projections: per modality, features to scores.
        variances: per modality (p_m,) variance of each score over training instances.
        cross: weighted moments of the scores over training instances; empty where features are taken as given.
        scores: per modality (n, p_m) float32, zero rows where absent; in memory or memory-mapped.
        present: (n, k) bool.
    """

    rows: npt.NDArray[np.int64]
    projections: tuple[Projection, ...]
    variances: tuple[npt.NDArray[np.float64], ...]
    cross: CrossMoments
    scores: tuple[npt.NDArray[np.float32], ...]
    present: npt.NDArray[np.bool_]

    def positions(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return where row numbers of the data set are in its arrays; anything for those it does not hold."""
        return np.searchsorted(self.rows, rows)


def chosen_by_hash(dataset: Dataset, rows: npt.NDArray[np.int64], most: int, seed: int) -> npt.NDArray[np.int64]:
    """Return ``rows``, or the ``most`` of them whose ids have the least hashes, ascending."""
    if len(rows) <= most:
        return rows
    hashes = hash_ids(dataset.ids.take(rows), seed)
    return np.sort(rows[np.argsort(hashes, kind="stable")[:most]])


def owned(world: World, dataset: Dataset, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return those of ``rows`` that this process holds: of consecutive rows of the data set, its share."""
    share = shard(len(dataset), world.rank, world.size)
    own: npt.NDArray[np.int64] = rows[(rows >= share.start) & (rows < share.stop)]
    return own


def owners(world: World, dataset: Dataset, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the rank that holds each of ``rows``."""
    stops = [shard(len(dataset), rank, world.size).stop for rank in range(world.size)]
    found: npt.NDArray[np.int64] = np.searchsorted(stops, rows, side="right")
    return found


def _columns_of(world: World, dataset: Dataset, m: int, rows: npt.NDArray[np.int64]) -> ColumnMoments:
    features = dataset.modalities[m]
    columns = ColumnMoments(features.dim)
    for block in dataset.blocks(owned(world, dataset, rows)):
        columns.add(features.read(block))
    return merged(world, columns)


def merged(world: World, moments: Moments) -> Moments:
    """Return the moments of the rows of all processes, to the same bits in each."""
    if world.size == 1:
        return moments

    def named(moments: Moments) -> dict[str, npt.NDArray[np.float64]]:
        return {str(i): array for i, array in enumerate(moments.arrays())}

    for number, arrays in enumerate(collect_arrays(world, named(moments))):  # nothing but at rank 0
        if number:
            moments.merge(type(moments).from_arrays(list(arrays.values())))
    return type(moments).from_arrays(list(first_arrays(world, named(moments)).values()))


def _fit_linear(
    world: World, dataset: Dataset, m: int, rows: npt.NDArray[np.int64], *, squash: bool, seed: int
) -> Projection:
    features = dataset.modalities[m]
    columns = _columns_of(world, dataset, m, rows)
    second = SecondMoment(features.dim)
    scale = inverse_deviation(columns)
    sampled = rows if features.dim <= AXES_ROWS else chosen_by_hash(dataset, rows, AXES_ROWS, seed)
    for block in dataset.blocks(owned(world, dataset, sampled)):
        second.add(standardise(features.read(block), columns.mean, scale, squash=squash))
    second = merged(world, second)
    # Past 0.9 n components the whitened scores only restate which instance is which.
    components = max(1, min(features.dim, int(0.9 * len(rows)), COMPONENTS))
    projection, _ = fit_projection(columns, second, components, squash=squash)
    if projection.components == 0:
        what = "constant modality"
        raise DataError(
            what,
            found=f"every training row of modality {features.name!r} is the same",
            expected="rows that differ",
            next_step="Leave the modality out, or check what wrote it.",
        )
    return projection


def _given(world: World, dataset: Dataset, m: int, rows: npt.NDArray[np.int64]) -> Projection:
    # Divided by one number, so that scores have variance 1 on average.
    features = dataset.modalities[m]
    columns = _columns_of(world, dataset, m, rows)
    scale = np.mean(columns.deviation**2) ** -0.5
    return Projection(
        columns.mean.astype(np.float32),
        np.full(features.dim, scale, dtype=np.float32),
        np.zeros(features.dim, dtype=np.float32),
        np.eye(features.dim, dtype=np.float32),
    )


def _scores(projection: Projection, dataset: Dataset, m: int, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    return np.concatenate([projection.scores(dataset.modalities[m].read(block)) for block in dataset.blocks(rows)])


def _fit_kernel(linear: Projection, dataset: Dataset, m: int, rows: npt.NDArray[np.int64], seed: int) -> Projection:
    # The sample holds the landmarks: both take the least hashes.
    sampled = chosen_by_hash(dataset, rows, AXES_ROWS, seed)
    landmarks = chosen_by_hash(dataset, sampled, LANDMARKS, seed)
    sample = _scores(linear, dataset, m, sampled)
    most = max(64, min(KERNEL_COMPONENTS, _STACKED // len(dataset.modalities)))
    components = max(1, min(int(0.9 * len(rows)), most))
    return fit_kernel(linear, sample[np.searchsorted(sampled, landmarks)], sample, components)


def fit_projections(
    dataset: Dataset,
    train: npt.NDArray[np.int64],
    features: FeatureMap,
    *,
    seed: int,
    linear: Sequence[Projection] | None = None,
    world: World = ALONE,
) -> tuple[Projection, ...]:
    """Fit a projection per modality on the training instances that have it.

    Args:
        dataset: what is read.
        train: (n_train,) row numbers, ascending.
        features: what kind of projections.
        seed: of the hash that chooses rows where there are more than needed.
        linear: for a kernel, the linear projections it follows, where they were fitted already.
        world: the processes that share the rows.

    Raises: DataError if a modality has fewer than two training instances, or is constant over them.
    """
    projections: list[Projection] = []
    for m, name in enumerate(dataset.names):
        rows = train[dataset.present[train, m]]
        if len(rows) < 2:
            what = "too few training instances"
            raise DataError(
                what,
                found=f"{len(rows)} with modality {name!r}",
                expected="2 or more (in practice hundreds)",
                next_step="Give more instances, or lower the shares held out (--validation, --test).",
            )
        if features.kind == "given":
            projection = _given(world, dataset, m, rows)
        elif linear:
            projection = linear[m]
        else:
            projection = _fit_linear(world, dataset, m, rows, squash=features.squash, seed=seed)
        if features.kind == "kernel":
            projection = _fit_kernel(projection, dataset, m, rows, seed)
        projections.append(Projection.from_arrays(first_arrays(world, projection.arrays()), squash=projection.squash))
    return tuple(projections)


def build_bank(
    dataset: Dataset,
    rows: npt.NDArray[np.int64],
    train: npt.NDArray[np.int64],
    projections: Sequence[Projection],
    *,
    cross: bool,
    scratch: Scratch,
    world: World = ALONE,
) -> Bank:
    """Project instances, and take the moments of those that train.

    Args:
        dataset: what is read.
        rows: (n,) row numbers to project, ascending; of several processes each projects its share of those that
            train, and all that do not.
        train: (n_train,) those of them that moments are taken over, ascending.
        projections: one per modality.
        cross: whether cross moments are wanted; features as given do without.
        scratch: where the scores live.
        world: the processes that share the rows.

    One sequential pass over the features.
    """
    chosen = owned(world, dataset, train)
    rows = np.union1d(chosen, np.setdiff1d(rows, train, assume_unique=True))
    widths = [projection.components for projection in projections]
    scores = tuple(scratch.empty((len(rows), width)) for width in widths)
    moments = CrossMoments(widths if cross else [])
    columns = [ColumnMoments(width) for width in widths]
    trains = np.zeros(len(rows), dtype=bool)
    trains[np.searchsorted(rows, chosen)] = True
    start = 0
    for block in dataset.blocks(rows):
        present = dataset.present[block]
        stop = start + len(present)
        training = trains[start:stop]
        for m, features in enumerate(dataset.modalities):
            scores[m][start:stop] = projections[m].scores(features.read(block)) * present[:, [m]]
            columns[m].add(scores[m][start:stop][training & present[:, m]])
        if cross:
            moments.add([s[start:stop][training] for s in scores], present[training])
        start = stop
    for array in moments.arrays():
        world.sum(torch.from_numpy(array))
    # Of all training instances: those the axes were found on may be a sample, on which they are too large.
    variances = [merged(world, column).deviation ** 2 for column in columns]
    return Bank(rows, tuple(projections), tuple(variances), moments, scores, dataset.present[rows])
