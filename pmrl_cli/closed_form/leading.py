"""The leading eigenvectors of a symmetric matrix, asked for by number."""

from __future__ import annotations

from scipy.linalg import eigh

from pmrl_cli.array_types import Array as Float64Array

__all__ = ["leading_eigenvectors"]


WHOLE_SHARE = 1 / 3
"""Share of the eigenvectors from which all of them by divide and conquer take less time than the leading ones by
bisection: measured at 768 (.11 s for all, .16 for 256), 1,024 (.22 for all, .16 for 128, .30 for 341, .37 for 512)
and 1,536 (.75 for all, .53 for 256, .80 for 512)."""


def leading_eigenvectors(matrix: Float64Array, count: int) -> tuple[Float64Array, Float64Array]:
    """Return the largest eigenvalues, descending, and their eigenvectors as columns.

    Args:
        matrix: (n, n) symmetric; it is overwritten.
        count: how many; at most n are returned.
    """
    size = len(matrix)
    first = max(0, size - count)
    if size - first >= WHOLE_SHARE * size:
        values, vectors = eigh(matrix, driver="evd", overwrite_a=True, check_finite=False)
        values, vectors = values[first:], vectors[:, first:]
    else:
        values, vectors = eigh(matrix, subset_by_index=(first, size - 1), overwrite_a=True, check_finite=False)
    return values[::-1], vectors[:, ::-1]
