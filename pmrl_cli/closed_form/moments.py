"""Mergeable moments of k modalities, from one pass over blocks of rows.

Each accumulator adds blocks in any order and merges with another of its kind. Sums are float64. Products of rows are
taken in the rows' own type, some thousands of rows at a time: those of float32 rows cost half as much. The result
does not depend on how the rows were cut into blocks, or divided among accumulators, beyond the rounding of that type.

Blocks and sums are of one arithmetic, NumPy's or that of a device; what is asked of an accumulator is NumPy's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Self

import numpy as np
import numpy.typing as npt

from pmrl_cli.array_types import Array as Float64Array
from pmrl_cli.closed_form.arithmetic import CPU, Arithmetic, Array

__all__ = ["ColumnMoments", "CrossMoments", "SecondMoment"]


_MULTIPLIED = 4096
"""Most rows whose product is summed in the rows' own type."""

_FLOAT64_NULL = 1e-10
"""Share of the largest variance below which a direction is null: rounding in float64 leaves about 1e-16."""

_NULL_EPSILONS = 8
"""The same for products in another type, in units of its rounding: float32 leaves up to 7e-8, 0.6 of a unit."""


def _pieces(block: Array, rows: int) -> Iterator[Array]:
    for start in range(0, len(block), rows):
        yield block[start : start + rows]


class ColumnMoments:
    """Count, mean and variance of every column of one modality.

    Blocks are merged by the pairwise update of Chan, Golub and LeVeque (1983), which does not cancel when the mean
    is large beside the deviation.

    Args:
        dim: columns d.
        arithmetic: of the blocks.
    """

    def __init__(self, dim: int, arithmetic: Arithmetic = CPU) -> None:
        self.arithmetic = arithmetic
        self.count = 0
        self._mean = arithmetic.zeros(dim)
        self._squares = arithmetic.zeros(dim)

    def add(self, block: Array) -> None:
        """Add the rows of a (B, d) block."""
        other = ColumnMoments(block.shape[1], self.arithmetic)
        for piece in _pieces(block, self.arithmetic.column_rows):
            rows = self.arithmetic.double(piece)
            other.count = len(rows)
            other._mean = rows.mean(axis=0)
            rows -= other._mean
            rows *= rows
            other._squares = rows.sum(axis=0)
            self.merge(other)

    def merge(self, other: ColumnMoments) -> None:
        """Add the rows another accumulator has seen."""
        total = self.count + other.count
        if total == 0:
            return
        shift = other._mean - self._mean
        self._squares += other._squares + shift**2 * (self.count * other.count / total)
        self._mean += shift * (other.count / total)
        self.count = total

    def arrays(self) -> list[Float64Array]:
        """Return the state, from which ``from_arrays`` makes an accumulator to merge, in this process or another."""
        return [np.array([self.count], dtype=np.float64), self.mean, self.arithmetic.fetch(self._squares)]

    @classmethod
    def from_arrays(cls, arrays: Sequence[Float64Array], arithmetic: Arithmetic = CPU) -> Self:
        """Build an accumulator from what ``arrays`` returned."""
        count, mean, squares = arrays
        moments = cls(len(mean), arithmetic)
        moments.count = int(count[0])
        moments._mean, moments._squares = arithmetic.send(mean.copy()), arithmetic.send(squares.copy())
        return moments

    @property
    def mean(self) -> Float64Array:
        """Mean of each column (d,)."""
        return self.arithmetic.fetch(self._mean)

    @property
    def deviation(self) -> Float64Array:
        """Standard deviation of each column (d,), dividing by the count; 0 where the column is constant."""
        deviation: Float64Array = np.sqrt(self.arithmetic.fetch(self._squares) / max(1, self.count))
        return deviation


class SecondMoment:
    """Mean and centred second moment of one modality: what its principal axes need.

    While there are no more rows than columns the rows themselves are kept (they are the smaller state, and their
    Gram matrix has the same spectrum as the covariance); beyond that they are folded into d x d sums. Memory is
    at most d x d float64 either way.

    Args:
        dim: columns d.
        arithmetic: of the blocks.
    """

    def __init__(self, dim: int, arithmetic: Arithmetic = CPU) -> None:
        self.arithmetic = arithmetic
        self.count = 0
        self._dim = dim
        self._sum = arithmetic.zeros(dim)
        self._rows: list[Array] = []
        self._products: Array | None = None
        self._rounding = _FLOAT64_NULL

    def add(self, block: Array) -> None:
        """Add the rows of a (B, d) block, of columns that are near zero in the mean (standardised).

        The block may be kept: it is not to be written to.
        """
        if len(block) == 0:
            return
        self.count += len(block)
        self._sum += block.sum(axis=0, dtype=self.arithmetic.xp.float64)
        self._rows.append(block)
        self._fold()

    def _fold(self) -> None:
        if self.count <= self._dim:
            return
        if self._products is None:
            self._products = self.arithmetic.zeros(self._dim, self._dim)
        for block in self._rows:
            self._rounding = max(self._rounding, _NULL_EPSILONS * self.arithmetic.epsilon(block))
            for piece in _pieces(block, _MULTIPLIED):
                self._products += self.arithmetic.product(piece.T, piece)
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
        fetch = self.arithmetic.fetch
        if self._products is None:
            last = np.concatenate([np.zeros((0, self._dim)), *map(fetch, self._rows)], dtype=np.float64)
        else:
            last = fetch(self._products)
        return [np.array([self.count, self._rounding]), fetch(self._sum), last]

    @classmethod
    def from_arrays(cls, arrays: Sequence[Float64Array], arithmetic: Arithmetic = CPU) -> Self:
        """Build an accumulator from what ``arrays`` returned."""
        (count, rounding), total, last = arrays
        moments = cls(len(total), arithmetic)
        moments.count, moments._rounding, moments._sum = int(count), float(rounding), arithmetic.send(total.copy())
        if moments.count > moments._dim:
            moments._products = arithmetic.send(last.copy())
        elif len(last):
            moments._rows = [arithmetic.send(last)]
        return moments

    @property
    def mean(self) -> Float64Array:
        """Mean of each column (d,)."""
        mean: Float64Array = self.arithmetic.fetch(self._sum) / max(1, self.count)
        return mean

    def principal_axes(self, components: int) -> tuple[Float64Array, Float64Array]:
        """Return the axes of largest variance and the variance along each.

        Args:
            components: how many are wanted; at most min(n - 1, d) with variance above rounding are returned.

        Returns: (d, p) orthonormal columns with a fixed sign (largest entry positive), and (p,) variances,
            descending, dividing by n.
        """
        on = self.arithmetic
        mean = on.send(self.mean)
        if self._products is not None:
            spread, directions = on.eigh(self._products / self.count - on.xp.outer(mean, mean))
        else:
            rows = on.double(on.xp.concatenate(self._rows)) - mean if self._rows else on.zeros(0, self._dim)
            spread, vectors = on.eigh(on.product(rows, rows.T) / max(1, self.count))
            norms = on.xp.sqrt(on.clip(spread * self.count, np.finfo(float).tiny))
            directions = on.product(rows.T, vectors) / norms
        variances: Float64Array = on.fetch(spread)
        order = np.argsort(variances)[::-1][:components]
        axes: Float64Array = on.fetch(directions[:, on.send(order)])
        variances = variances[order]
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
        arithmetic: of the blocks, and of ``products``; ``weights`` are NumPy's.
    """

    def __init__(self, dims: Sequence[int], arithmetic: Arithmetic = CPU) -> None:
        self.arithmetic = arithmetic
        self.dims = tuple(dims)
        self.weights: Float64Array = np.zeros(len(self.dims))
        self.products = arithmetic.zeros(sum(self.dims), sum(self.dims))

    def add(self, blocks: Sequence[Array], present: npt.NDArray[np.bool_]) -> None:
        """Add B instances: a (B, d_m) block for each modality, all of one type, and their (B, k) presence.

        Where absent a block may hold anything finite.
        """
        on = self.arithmetic
        weight = len(self.dims) / np.maximum(present.sum(axis=1), 1)
        self.weights += weight @ present
        edges = [0, *accumulate(self.dims)]
        stacked = on.empty((min(len(present), _MULTIPLIED), edges[-1]), blocks[0].dtype)
        factors = on.cast(on.send(present * np.sqrt(weight)[:, None]), stacked.dtype)
        for start in range(0, len(present), _MULTIPLIED):
            rows = slice(start, start + _MULTIPLIED)
            part = stacked[: len(factors[rows])]
            for m, (first, last) in enumerate(pairwise(edges)):
                on.xp.multiply(blocks[m][rows], factors[rows, m : m + 1], out=part[:, first:last])
            self.products += on.product(part.T, part)

    @property
    def instances(self) -> int:
        """How many instances there are with any of the modalities: the rank of the products is no greater."""
        return round(float(self.weights.sum()) / max(1, len(self.dims)))

    def leading(self, most: int) -> CrossMoments:
        """Return the moments of the first ``most`` columns of each modality."""
        dims = [min(dim, most) for dim in self.dims]
        starts = [0, *accumulate(self.dims)]
        columns = np.concatenate([np.arange(first, first + dim) for first, dim in zip(starts, dims, strict=False)])
        leading, taken = CrossMoments(dims, self.arithmetic), self.arithmetic.send(columns)
        leading.weights, leading.products = self.weights, self.products[taken[:, None], taken]
        return leading

    def merge(self, other: CrossMoments) -> None:
        """Add the instances another accumulator has seen."""
        self.products += other.products
        self.weights += other.weights

    def arrays(self) -> list[Float64Array]:
        """Return the state; that of instances seen apart is the sum of their states."""
        return [self.arithmetic.fetch(self.products), self.weights]

    def from_arrays(self, arrays: Sequence[Float64Array]) -> CrossMoments:
        """Return moments of the same columns with the state that ``arrays`` returned."""
        moments = CrossMoments(self.dims, self.arithmetic)
        moments.products, moments.weights = self.arithmetic.send(arrays[0]), arrays[1]
        return moments
