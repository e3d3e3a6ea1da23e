"""Projections of the features, fitted on some training instances: what they have in common is computed once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pmrl_cli.closed_form.arithmetic import CPU, Arithmetic
from pmrl_cli.closed_form.moments import ColumnMoments, SecondMoment
from pmrl_cli.closed_form.projection import (
    FeatureMap,
    Projection,
    fit_kernel,
    fit_projection,
    inverse_deviation,
    standardise,
)
from pmrl_cli.closed_form.shards import local_rows, reduce_moments
from pmrl_cli.data.dataset import Dataset
from pmrl_cli.errors import DataError
from pmrl_cli.process_group import SINGLE_PROCESS, ProcessGroup, broadcast_arrays

__all__ = ["COMPONENTS", "ProjectionFitter"]

COMPONENTS = 256
"""Principal components kept per modality: more did not help on any set measured, fewer lost where rows are many."""

KERNEL_COMPONENTS = 512
"""Kernel components per modality: twice the linear ones, as a nonlinear map needs more directions; fewer where many
modalities would make the closed form's one eigen-decomposition slow (``_STACKED``)."""

_STACKED = 1536

AXES_ROWS = 4096
"""Kernels, and modalities with more columns than this, find their principal axes on this many training rows chosen
by hash, so that no state grows beyond AXES_ROWS x d."""


class ProjectionFitter:
    """Fits projections of every kind on the same training instances.

    Column moments do not depend on the kind of projection, nor linear projections on whether a kernel follows them:
    each is computed at its first use and kept.

    Args:
        dataset: what is read.
        train: (n_train,) row numbers, ascending.
        seed: of the hash that chooses rows where there are more than needed.
        processes: the processes that share the rows.
        arithmetic: what it computes with.

    Raises: DataError if a modality has fewer than two training instances.
    """

    def __init__(
        self,
        dataset: Dataset,
        train: npt.NDArray[np.int64],
        *,
        seed: int,
        processes: ProcessGroup = SINGLE_PROCESS,
        arithmetic: Arithmetic = CPU,
    ) -> None:
        self.train = train
        self._arithmetic = arithmetic
        self._dataset, self._seed, self._processes = dataset, seed, processes
        self._rows = [train[dataset.present[train, m]] for m in range(len(dataset.modalities))]
        self._columns: dict[int, ColumnMoments] = {}
        self._fitted: dict[tuple[int, FeatureMap], Projection] = {}
        for name, rows in zip(dataset.names, self._rows, strict=True):
            if len(rows) < 2:
                raise DataError(
                    what="too few training instances",
                    found=f"{len(rows)} with modality {name!r}",
                    expected="2 or more (in practice hundreds)",
                    next_step="Give more instances, or lower the shares held out (--validation, --test).",
                )

    def fit(self, features: FeatureMap) -> tuple[Projection, ...]:
        """Return a projection per modality.

        Raises: DataError if a modality is constant over its training instances.
        """
        return tuple(self._projection(m, features) for m in range(len(self._rows)))

    def _projection(self, m: int, features: FeatureMap) -> Projection:
        if (m, features) not in self._fitted:
            make = {"linear": self._linear, "kernel": self._kernel, "given": self._given}[features.kind]
            arrays = broadcast_arrays(self._processes, make(m, features).arrays())
            self._fitted[m, features] = Projection.from_arrays(arrays, squash=features.squash)
        return self._fitted[m, features]

    def _moments(self, m: int) -> ColumnMoments:
        if m not in self._columns:
            features = self._dataset.modalities[m]
            columns = ColumnMoments(features.dim, self._arithmetic)
            for block in self._dataset.blocks(local_rows(self._processes, self._dataset, self._rows[m])):
                columns.add(self._arithmetic.read(features, block))
            self._columns[m] = reduce_moments(self._processes, columns)
        return self._columns[m]

    def _linear(self, m: int, of: FeatureMap) -> Projection:
        features, rows, on = self._dataset.modalities[m], self._rows[m], self._arithmetic
        columns = self._moments(m)
        second = SecondMoment(features.dim, on)
        mean, scale = on.send(columns.mean), on.send(inverse_deviation(columns))
        if features.dim > AXES_ROWS:
            rows = self._dataset.smallest_by_hash(rows, AXES_ROWS, self._seed)
        for block in self._dataset.blocks(local_rows(self._processes, self._dataset, rows)):
            second.add(standardise(on.read(features, block), mean, scale, squash=of.squash))
        second = reduce_moments(self._processes, second)
        # Past 0.9 n components the whitened components only restate which instance is which.
        components = max(1, min(features.dim, int(0.9 * len(self._rows[m])), COMPONENTS))
        projection, _ = fit_projection(columns, second, components, squash=of.squash)
        if projection.components == 0:
            raise DataError(
                what="constant modality",
                found=f"every training row of modality {features.name!r} is the same",
                expected="rows that differ",
                next_step="Leave the modality out, or check what wrote it.",
            )
        return projection

    def _given(self, m: int, of: FeatureMap) -> Projection:
        # Divided by one number, so that components have variance 1 on average.
        dim = self._dataset.modalities[m].dim
        columns = self._moments(m)
        scale = np.mean(columns.deviation**2) ** -0.5
        return Projection(
            columns.mean.astype(np.float32),
            np.full(dim, scale, dtype=np.float32),
            np.zeros(dim, dtype=np.float32),
            np.eye(dim, dtype=np.float32),
            of.squash,
        )

    def _kernel(self, m: int, of: FeatureMap) -> Projection:
        linear = self._projection(m, FeatureMap("linear", squash=of.squash))
        rows, features, on = self._rows[m], self._dataset.modalities[m], self._arithmetic
        # The sample holds the landmarks: both take the least hashes.
        sampled = self._dataset.smallest_by_hash(rows, AXES_ROWS, self._seed)
        landmarks = self._dataset.smallest_by_hash(sampled, of.landmarks, self._seed)
        sample = on.xp.concatenate(
            [linear.on(on).scores(on.read(features, block)) for block in self._dataset.blocks(sampled)]
        )
        most = max(64, min(KERNEL_COMPONENTS, of.landmarks // 2, _STACKED // len(self._rows)))
        components = max(1, min(int(0.9 * len(rows)), most))
        return fit_kernel(linear, sample[on.send(np.searchsorted(sampled, landmarks))], sample, components)
