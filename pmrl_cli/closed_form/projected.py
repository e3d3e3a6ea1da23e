"""The components of the instances that train and choose, computed once, from which training draws batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from pmrl_cli.closed_form.arithmetic import CPU, Arithmetic, Array, arithmetic_of, as_tensor
from pmrl_cli.closed_form.moments import ColumnMoments, CrossMoments
from pmrl_cli.closed_form.projection import Projection
from pmrl_cli.closed_form.shards import local_rows, reduce_cross, reduce_moments
from pmrl_cli.data.dataset import Dataset
from pmrl_cli.files.durable.scratch import Scratch
from pmrl_cli.process_group import SINGLE_PROCESS, ProcessGroup

__all__ = ["ProjectedData", "project"]


@dataclass(frozen=True)
class ProjectedData:
    """Components of the instances that this process holds, and the moments of all that train.

    Args:
        rows: (n,) row numbers in the data set, ascending.
        projections: per modality, features to components.
        variances: per modality (p_m,) variance of each component over training instances.
        cross: weighted moments of the components over training instances; empty where features are taken as given.
        components: per modality (n, p_m) float32, zero rows where absent; in memory, memory-mapped or on a device.
        present: (n, k) bool.
    """

    rows: npt.NDArray[np.int64]
    projections: tuple[Projection, ...]
    variances: tuple[npt.NDArray[np.float64], ...]
    cross: CrossMoments
    components: tuple[Array, ...]
    present: npt.NDArray[np.bool_]

    def positions(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return where row numbers of the data set are in its arrays; undefined for rows of other ranks."""
        return np.searchsorted(self.rows, rows)

    def take(self, positions: npt.NDArray[np.int64]) -> list[Tensor]:
        """Return the components at some positions of its arrays, on the CPU."""
        return [self.take_modality(m, positions) for m in range(len(self.components))]

    def take_modality(self, m: int, positions: npt.NDArray[np.int64]) -> Tensor:
        """Return the components of modality m at some positions of its array, on the CPU."""
        array = self.components[m]
        return as_tensor(array[arithmetic_of(array).send(positions)]).cpu()


def project(
    dataset: Dataset,
    rows: npt.NDArray[np.int64],
    train: npt.NDArray[np.int64],
    projections: Sequence[Projection],
    *,
    cross: bool,
    scratch: Scratch,
    processes: ProcessGroup = SINGLE_PROCESS,
    arithmetic: Arithmetic = CPU,
) -> ProjectedData:
    """Project instances, and take the moments of those that train, in one sequential pass over the features.

    Args:
        dataset: what is read.
        rows: (n,) row numbers to project, ascending; of several processes each projects its shard of those that
            train, and all that do not.
        train: (n_train,) those of them that moments are taken over, ascending.
        projections: one per modality.
        cross: whether cross moments are wanted; features as given do without.
        scratch: where the components live.
        processes: the processes that share the rows.
        arithmetic: what it computes with; on a device that has room for them the components stay there.
    """
    on, there = arithmetic, [projection.on(arithmetic) for projection in projections]
    chosen = local_rows(processes, dataset, train)
    rows = np.union1d(chosen, np.setdiff1d(rows, train, assume_unique=True))
    widths = [projection.components for projection in projections]
    components = on.banks(scratch, len(rows), widths)
    moments = CrossMoments(widths if cross else [], on)
    columns = [ColumnMoments(width, on) for width in widths]
    trains = np.zeros(len(rows), dtype=bool)
    trains[np.searchsorted(rows, chosen)] = True
    start = 0
    for block in dataset.blocks(rows):
        present = dataset.present[block]
        stop = start + len(present)
        training = trains[start:stop]
        scores = []
        for m, features in enumerate(dataset.modalities):
            scores.append(there[m].scores(on.read(features, block)) * on.send(present[:, [m]]))
            components[m][start:stop] = scores[m] if isinstance(components[m], Tensor) else on.fetch(scores[m])
            columns[m].add(on.chosen(scores[m], training & present[:, m]))
        if cross:
            moments.add([on.chosen(one, training) for one in scores], present[training])
        start = stop
    moments = reduce_cross(processes, moments)
    # Of all training instances: those the axes were found on may be a sample, on which they are too large.
    variances = [reduce_moments(processes, column).deviation ** 2 for column in columns]
    return ProjectedData(rows, tuple(projections), tuple(variances), moments, components, dataset.present[rows])
