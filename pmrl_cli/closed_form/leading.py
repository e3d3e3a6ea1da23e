"""The leading eigenvectors of a symmetric matrix, asked for by number."""

from __future__ import annotations

import numpy as np
import torch
from scipy.linalg import eigh
from scipy.linalg.lapack import dpstrf

from pmrl_cli.array_types import Array as Float64Array

__all__ = ["leading_eigenvectors"]


WHOLE_SHARE = 1 / 5
"""Share of the eigenvectors from which all of them by divide and conquer (torch's LAPACK) take no more time than the
leading ones by bisection (SciPy's). Of 768: .084 s for all, .068 for an eighth, .088 for a fifth; of 1,024: .172,
.175 and .217; of 1,536: .578, .446 and .528. In float32 a little over half of each."""


RANK_SHARE = 1 / 2
"""Rank, as a share of the size, up to which a factor of the matrix takes part in its place: .04 s for .16 with 300 of
1,024, and 128 vectors; .06 for .36 with 365 of 1,280, and 256; as much or more from .8 on."""


def leading_eigenvectors(
    matrix: Float64Array, count: int, rank: int | None = None
) -> tuple[Float64Array, Float64Array]:
    """Return the largest eigenvalues, descending, and their eigenvectors as columns.

    Of a matrix known to be positive semidefinite and of low rank r, those of L L^T, whose factor L of r columns is
    found by Cholesky with complete pivoting (LAPACK's ``pstrf``): where L^T L v = a v, L v / sqrt(a) is an
    eigenvector of L L^T of the same eigenvalue. What rounding adds to the rank is left out.

    Args:
        matrix: (n, n) symmetric; it is overwritten.
        count: how many; at most n are returned.
        rank: of a positive semidefinite matrix, its rank at most, where that is known.
    """
    if rank is not None and count <= rank <= RANK_SHARE * len(matrix):
        factor = _factor(matrix.copy(), rank)
        if factor.shape[1] >= count:
            values, vectors = _leading(factor.T @ factor, count)
            if values[-1] > 0:
                return values, factor @ vectors / np.sqrt(values)
    return _leading(matrix, count)


def _factor(matrix: Float64Array, rank: int) -> Float64Array:
    """Return L of at most ``rank`` columns, where L L^T is the (n, n) matrix."""
    upper, pivots, found, _ = dpstrf(matrix.T, lower=0, overwrite_a=1)
    columns = min(rank, found)
    factor = np.empty((len(matrix), columns))
    factor[pivots - 1] = np.triu(upper[:columns]).T
    return factor


def _leading(matrix: Float64Array, count: int) -> tuple[Float64Array, Float64Array]:
    size = len(matrix)
    first = max(0, size - count)
    if size - first < WHOLE_SHARE * size:
        values, vectors = eigh(matrix, subset_by_index=(first, size - 1), overwrite_a=True, check_finite=False)
        return values[::-1], vectors[:, ::-1]
    values, vectors = (one.numpy()[..., first:] for one in torch.linalg.eigh(torch.from_numpy(matrix)))
    return values[::-1], vectors[:, ::-1]
