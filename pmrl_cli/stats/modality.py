"""Statistics of the cloud of one modality, from moments of its unit vectors."""

from __future__ import annotations

import numpy as np

from pmrl_cli.array_types import Array

__all__ = ["effective_dimension", "mean_off_diagonal_cosine"]


def mean_off_diagonal_cosine(total: Array, count: int) -> float | None:
    """Return the mean cosine between different instances of a modality, in [-1/(n-1), 1]; None below two.

    Args:
        total: (d,) sum of the unit vectors.
        count: how many.
    """
    return float((total @ total - count) / (count * (count - 1))) if count > 1 else None


def effective_dimension(n: int, total: Array, second: Array) -> float | None:
    """Return the debiased participation ratio of a cloud of unit vectors: (tr C)^2 / ||C||_F^2, in [1, d] or so.

    d for an isotropic cloud even where there are fewer vectors than dimensions; ||C||_F^2 is estimated without
    bias. None with fewer than four vectors or where the cloud is a point.

    Args:
        n: unit vectors.
        total: (d,) their sum.
        second: (d, d) the sum of x x^T.

    Source: Song et al., "Feature selection via dependence maximization", JMLR 2012 (unbiased HSIC), of the
        cloud with itself, in moments.
    """
    if n < 4:
        return None
    squared = float(total @ total)
    trace = (n - squared / n) / (n - 1)
    off_diagonal = np.vdot(second, second) - n
    row_sums = total @ second @ total - 2 * squared + n
    unbiased = off_diagonal + (squared - n) ** 2 / ((n - 1) * (n - 2)) - 2 * row_sums / (n - 2)
    norm = unbiased / (n * (n - 3))
    return float(trace**2 / norm) if trace > 1e-9 and norm > 0 else None
