"""Mergeable moments of k modalities, from one pass over blocks of rows.

Each accumulator adds blocks in any order and merges with another of its kind. Sums are float64. Products of rows are
taken in the rows' own type, some thousands of rows at a time: those of float32 rows cost half as much. The result
does not depend on how the rows were cut into blocks, or divided among accumulators, beyond the rounding of that type.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Self

import numpy as np
import numpy.typing as npt

__all__ = ["ColumnMoments", "CrossMoments", "SecondMoment"]

Float64Array = npt.NDArray[np.float64]
FloatArray = npt.NDArray[np.floating]

_CACHED = 128  # rows of some hundred float64 columns that stay in cache while their moments are taken

_MULTIPLIED = 4096
"""Most rows whose product is summed in the rows' own type."""

_FLOAT64_NULL = 1e-10
"""Share of the largest variance below which a direction is null: rounding in float64 leaves about 1e-16."""

_NULL_EPSILONS = 8
"""The same for products in another type, in units of its rounding: float32 leaves up to 7e-8, 0.6 of a unit."""


def _pieces(block: FloatArray, rows: int) -> Iterator[FloatArray]:
    for start in range(0, len(block), rows):
        yield block[start : start + rows]


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

    def add(self, block: FloatArray) -> None:
        """Add the rows of a (B, d) block."""
        other = ColumnMoments(block.shape[1])
        for piece in _pieces(block, _CACHED):
            rows = piece.astype(np.float64)
            other.count = len(rows)
            other.mean = rows.mean(axis=0)
            rows -= other.mean
            rows *= rows
            other._squares = rows.sum(axis=0)
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

    def arrays(self) -> list[Float64Array]:
        """Return the state, from which ``from_arrays`` makes an accumulator to merge, in this process or another."""
        return [np.array([self.count], dtype=np.float64), self.mean, self._squares]

    @classmethod
    def from_arrays(cls, arrays: Sequence[Float64Array]) -> Self:
        """Build an accumulator from what ``arrays`` returned."""
        count, mean, squares = arrays
        moments = cls(len(mean))
        moments.count, moments.mean, moments._squares = int(count[0]), mean.copy(), squares.copy()
        return moments

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
        self._rows: list[FloatArray] = []
        self._products: Float64Array | None = None
        self._rounding = _FLOAT64_NULL

    def add(self, block: FloatArray) -> None:
        """Add the rows of a (B, d) block, of columns that are near zero in the mean (standardised).

        The block may be kept: it is not to be written to.
        """
        if len(block) == 0:
            return
        self.count += len(block)
        self._sum += block.sum(axis=0, dtype=np.float64)
        self._rows.append(block)
        self._fold()

    def _fold(self) -> None:
        if self.count <= self._dim:
            return
        if self._products is None:
            self._products = np.zeros((self._dim, self._dim))
        for block in self._rows:
            self._rounding = max(self._rounding, _NULL_EPSILONS * float(np.finfo(block.dtype).eps))
            for piece in _pieces(block, _MULTIPLIED):
                self._products += piece.T @ piece
        self._rows = []

    def merge(self, other: SecondMoment) -> None:
        """Add the rows another accumulator has seen."""
        self.count += other.count
        self._sum += other._sum
        self._rows += other._rows
        self._fold()
        if other._products is not None and self._products is not None:
            self._products += other._products
            self._rounding = max(self._rounding, other._rounding)

    def arrays(self) -> list[Float64Array]:
        """Return the state, from which ``from_arrays`` makes an accumulator to merge, in this process or another.

        Its last array has the rows while there are no more of them than columns, else their products.
        """
        last = self._products
        if last is None:
            last = np.concatenate([np.zeros((0, self._dim)), *self._rows], dtype=np.float64)
        return [np.array([self.count, self._rounding]), self._sum, last]

    @classmethod
    def from_arrays(cls, arrays: Sequence[Float64Array]) -> Self:
        """Build an accumulator from what ``arrays`` returned."""
        (count, rounding), total, last = arrays
        moments = cls(len(total))
        moments.count, moments._rounding, moments._sum = int(count), float(rounding), total.copy()
        if moments.count > moments._dim:
            moments._products = last.copy()
        elif len(last):
            moments._rows = [last]
        return moments

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
        # Whitening what rounding left of null directions would amplify noise.
        kept = variances > self._rounding * max(variances[0], 0.0) if len(variances) else np.zeros(0, dtype=bool)
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

    def add(self, blocks: Sequence[FloatArray], present: npt.NDArray[np.bool_]) -> None:
        """Add B instances: one (B, d_m) block a modality, anything finite where absent, and (B, k) presence."""
        weight = len(self.dims) / np.maximum(present.sum(axis=1), 1)
        self.weights += weight @ present
        edges = [0, *accumulate(self.dims)]
        stacked = np.empty((min(len(present), _MULTIPLIED), edges[-1]), dtype=np.result_type(*blocks))
        factors = (present * np.sqrt(weight)[:, None]).astype(stacked.dtype)
        for start in range(0, len(present), _MULTIPLIED):
            rows = slice(start, start + _MULTIPLIED)
            part = stacked[: len(factors[rows])]
            for m, (first, last) in enumerate(pairwise(edges)):
                np.multiply(blocks[m][rows], factors[rows, [m]], out=part[:, first:last])
            self.products += part.T @ part

    def leading(self, most: int) -> CrossMoments:
        """Return the moments of the first ``most`` columns of each modality."""
        dims = [min(dim, most) for dim in self.dims]
        starts = [0, *accumulate(self.dims)]
        columns = np.concatenate([np.arange(first, first + dim) for first, dim in zip(starts, dims, strict=False)])
        leading = CrossMoments(dims)
        leading.weights, leading.products = self.weights, self.products[np.ix_(columns, columns)]
        return leading

    def merge(self, other: CrossMoments) -> None:
        """Add the instances another accumulator has seen."""
        self.products += other.products
        self.weights += other.weights

    def arrays(self) -> list[Float64Array]:
        """Return the state; that of instances seen apart is the sum of their states."""
        return [self.products, self.weights]
