"""Projections that are kept for new data: with more components, for what they leave out of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pmrl_cli.closed_form.arithmetic import CPU, Arithmetic
from pmrl_cli.closed_form.columns import AXES_ROWS, COMPONENTS
from pmrl_cli.closed_form.moments import SecondMoment
from pmrl_cli.closed_form.projection import Projection, standardise
from pmrl_cli.closed_form.shards import local_rows, reduce_moments
from pmrl_cli.data.dataset import Dataset
from pmrl_cli.process_group import ProcessGroup, broadcast_arrays

__all__ = ["axis_lengths", "extend"]

_NULL = 1e-9
"""Of the energy: what is left of rows that the components hold whole is rounding."""


def axis_lengths(projection: Projection) -> npt.NDArray[np.float32]:
    """Return the (p,) lengths of the axes of the components: whitening has made them longer.

    Those of a kernel are lengths in the space of its features.
    """
    if projection.kernel is None:
        squared = np.square(projection.basis, dtype=np.float64).sum(axis=0)
    else:
        kernel = projection.kernel
        basis = kernel.basis.astype(np.float64)
        squared = (basis * (kernel.values(kernel.landmarks).astype(np.float64) @ basis)).sum(axis=0)
    lengths: npt.NDArray[np.float32] = np.sqrt(np.maximum(squared, 0)).astype(np.float32)
    return lengths


def extend(
    projection: Projection,
    dataset: Dataset,
    m: int,
    rows: npt.NDArray[np.int64],
    *,
    ridge: float,
    processes: ProcessGroup,
    arithmetic: Arithmetic = CPU,
) -> Projection:
    """Return a linear projection with the principal axes of what it leaves out of some rows as further components.

    The first components are as they were; the further ones are orthogonal to them, and divided by the root of their
    variance, plus ``ridge`` times its mean.

    Args:
        projection: of modality m.
        dataset: what is read.
        m: the modality.
        rows: (n,) row numbers that have it, of all processes.
        ridge: relative ridge, as of the closed form.
        processes: the processes that share the rows.
        arithmetic: what it computes with.
    """
    span = np.linalg.qr(projection.basis.astype(np.float64))[0].astype(np.float32)
    most = min(projection.dim - projection.components, int(0.9 * len(rows)), COMPONENTS)
    if most < 1:
        return projection
    if projection.dim > AXES_ROWS:
        rows = dataset.smallest_by_hash(rows, AXES_ROWS, 0)
    on, there = arithmetic, projection.on(arithmetic)
    second, energy, known = SecondMoment(projection.dim, on), on.zeros(1), on.send(span)
    for block in dataset.blocks(local_rows(processes, dataset, rows)):
        standard = standardise(
            on.read(dataset.modalities[m], block), there.mean, there.scale, squash=projection.squash
        )
        standard -= there.center
        energy += on.xp.square(on.double(standard)).sum()
        second.add(standard - on.product(on.product(standard, known), known.T))
    second = reduce_moments(processes, second)
    axes, variances = second.principal_axes(most)
    kept = variances > _NULL * on.fetch(energy)[0] / max(1, second.count)
    axes, variances = axes[:, kept], variances[kept]
    if not kept.any():
        return projection
    # Orthogonal to the old axes to the last digit: else old rows would not be zero in the new components.
    axes = np.linalg.qr(axes - span.astype(np.float64) @ (span.T.astype(np.float64) @ axes))[0]
    factors = (variances + ridge * variances.mean()) ** -0.5
    found = broadcast_arrays(processes, {"basis": (axes * factors).astype(np.float32)})["basis"]
    return replace(projection, basis=np.concatenate([projection.basis, found], axis=1))
