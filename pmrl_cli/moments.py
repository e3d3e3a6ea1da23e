"""Mergeable float64 moments of k modalities, from one pass over blocks of rows.

Each accumulator adds blocks in any order and merges with another of its kind; the result does not depend on how
the rows were cut into blocks beyond float64 rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["ColumnMoments", "CrossMoments", "SecondMoment"]

Float64Array = npt.NDArray[np.float64]


class ColumnMoments:
    """Count, mean and variance of every column of one modality.

    Blocks are merged by the pairwise update of Chan, Golub and LeVeque (1983), which does not cancel when the mean
    is large beside the deviation.

    Args:
        dim: columns d.
    """

    def __init__(self, dim: int) -> None:
        self.count = 0
        self.mean: Float64Array = np.zeros(dim)
        self._squares: Float64Array = np.zeros(dim)

    def add(self, block: npt.NDArray[np.floating]) -> None:
        """Add the rows of a (B, d) block."""
        if len(block) == 0:
            return
        other = ColumnMoments(block.shape[1])
        rows = block.astype(np.float64)
        other.count = len(rows)
        other.mean = rows.mean(axis=0)
        other._squares = np.square(rows - other.mean).sum(axis=0)
        self.merge(other)

    def merge(self, other: ColumnMoments) -> None:
        """Add the rows another accumulator has seen."""
        total = self.count + other.count
        if total == 0:
            return
        shift = other.mean - self.mean
        self._squares += other._squares + shift**2 * (self.count * other.count / total)
        self.mean += shift * (other.count / total)
        self.count = total

    @property
    def deviation(self) -> Float64Array:
        """Standard deviation of each column (d,), dividing by the count; 0 where the column is constant."""
        return np.sqrt(self._squares / max(1, self.count))


class SecondMoment:
    """Mean and centred second moment of one modality: what its principal axes need.

    While there are no more rows than columns the rows themselves are kept (they are the smaller state, and their
    Gram matrix has the same spectrum as the covariance); beyond that they are folded into d x d sums. Memory is
    at most d x d float64 either way.

    Args:
        dim: columns d.
    """

    def __init__(self, dim: int) -> None:
        self.count = 0
        self._dim = dim
        self._sum: Float64Array = np.zeros(dim)
        self._rows: list[npt.NDArray[np.floating]] = []
        self._products: Float64Array | None = None

    def add(self, block: npt.NDArray[np.floating]) -> None:
        """Add the rows of a (B, d) block, of columns that are near zero in the mean (standardised)."""
        if len(block) == 0:
            return
        self.count += len(block)
        self._sum += block.sum(axis=0, dtype=np.float64)
        self._rows.append(block)
        if self._products is not None or self.count > self._dim:
            self._fold()

    def _fold(self) -> None:
        if self._products is None:
            self._products = np.zeros((self._dim, self._dim))
        for block in self._rows:
            rows = block.astype(np.float64)
            self._products += rows.T @ rows
        self._rows = []

    def merge(self, other: SecondMoment) -> None:
        """Add the rows another accumulator has seen."""
        self.count += other.count
        self._sum += other._sum
        self._rows += other._rows
        if other._products is not None:
            self._fold()
            assert self._products is not None
            self._products += other._products
        if self._products is not None or self.count > self._dim:
            self._fold()

    @property
    def mean(self) -> Float64Array:
        """Mean of each column (d,)."""
        return self._sum / max(1, self.count)

    def principal_axes(self, components: int) -> tuple[Float64Array, Float64Array]:
        """Return the axes of largest variance and the variance along each.

        Args:
            components: how many are wanted; at most min(n - 1, d) with variance above rounding are returned.

        Returns: (d, p) orthonormal columns with a fixed sign (largest entry positive), and (p,) variances,
            descending, dividing by n.
        """
        mean = self.mean
        if self._products is not None:
            covariance = self._products / self.count - np.outer(mean, mean)
            variances, axes = np.linalg.eigh(covariance)
        else:
            rows = np.concatenate(self._rows).astype(np.float64) - mean if self._rows else np.zeros((0, self._dim))
            variances, vectors = np.linalg.eigh(rows @ rows.T / max(1, self.count))
            norms = np.sqrt(np.maximum(variances * self.count, np.finfo(float).tiny))
            axes = (rows.T @ vectors) / norms
        order = np.argsort(variances)[::-1][:components]
        variances, axes = variances[order], axes[:, order]
        # Rounding leaves null directions at about 1e-16 of the largest; whitening them would amplify noise.
        kept = variances > 1e-10 * max(variances[0], 0.0) if len(variances) else np.zeros(0, dtype=bool)
        variances, axes = variances[kept], axes[:, kept]
        largest = np.abs(axes).argmax(axis=0) if axes.shape[1] else np.zeros(0, dtype=np.int64)
        return axes * np.where(axes[largest, np.arange(axes.shape[1])] < 0, -1.0, 1.0), variances


class CrossMoments:
    """Weighted second moments of all modalities side by side, over the instances where both are present.

    Block (a, b) is the sum over instances with both a and b of w_i x_ia x_ib^T, where w_i = k / observed_i: an
    instance counts the same however many of its modalities were observed (the weighting of MAXVAR GCCA with
    missing rows; van de Velden and Takane, Computational Statistics 27, 2012). ``weights`` is, per modality, the sum
    of w_i over the instances that have it.

    Args:
        dims: columns of each modality.
    """

    def __init__(self, dims: Sequence[int]) -> None:
        self.dims = tuple(dims)
        self.weights: Float64Array = np.zeros(len(self.dims))
        self.products: Float64Array = np.zeros((sum(self.dims), sum(self.dims)))

    def add(self, blocks: Sequence[npt.NDArray[np.floating]], present: npt.NDArray[np.bool_]) -> None:
        """Add B instances: one (B, d_m) block a modality, zero rows where absent, and (B, k) presence."""
        observed = present.sum(axis=1)
        weight = len(self.dims) / np.maximum(observed, 1)
        stacked = np.concatenate(
            [block * present[:, [m]] for m, block in enumerate(blocks)], axis=1, dtype=np.float64
        )
        stacked *= np.sqrt(weight)[:, None]
        self.products += stacked.T @ stacked
        self.weights += weight @ present

    def merge(self, other: CrossMoments) -> None:
        """Add the instances another accumulator has seen."""
        self.products += other.products
        self.weights += other.weights
