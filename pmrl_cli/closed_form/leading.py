"""The leading eigenvectors of a symmetric matrix, asked for by number."""

from __future__ import annotations

import numpy as np
import torch
from scipy.linalg import eigh
from scipy.linalg.lapack import dpstrf

from pmrl_cli.array_types import Array as Float64Array

__all__ = ["leading_eigenvectors"]


WHOLE_SHARE = 1 / 3
"""Share of the eigenvectors from which all of them by divide and conquer take less time than the leading ones by
bisection: measured at 768 (.11 s for all, .16 for 256), 1,024 (.22 for all, .16 for 128, .30 for 341, .37 for 512)
and 1,536 (.75 for all, .53 for 256, .80 for 512)."""


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
    if matrix.dtype == np.float32:  # of 512 in .018 s, where SciPy takes .026; as long of 768
        values, vectors = (one.numpy() for one in torch.linalg.eigh(torch.from_numpy(matrix)))
    else:
        values, vectors = eigh(matrix, driver="evd", overwrite_a=True, check_finite=False)
    values, vectors = values[first:], vectors[:, first:]
    return values[::-1], vectors[:, ::-1]
