"""Average precision and R-precision of queries with several right answers, exact under ties.

Let n candidates score above a right answer y, a of them right, and let m score as it does (y among them), r of them
right. Tied candidates stand in random order: at place n + p, p = 1 .. m each with probability 1 / m, y has a expected
precision of (a + 1 + (p - 1) (r - 1) / (m - 1)) / (n + p). The average precision is the mean of that over p and over
the right answers: with c = (r - 1) / (m - 1), or 0 where y ties with none, and harmonic numbers H,

    c + (a + 1 - c (n + 1)) (H_(n+m) - H_n) / m.

The R-precision is the share of right answers among the first R, the number of right answers: y is there with
probability (R - n) / m, clipped to [0, 1].

Source: McSherry and Najork, *Computing information retrieval performance measures efficiently in the presence of
tied scores*, ECIR 2008. Departs: scores within a band tie, each right answer with those in its own band.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pmrl_cli.array_types import Array

__all__ = ["chance_average_precision", "harmonic", "precisions"]


def harmonic(count: int) -> Array:
    """Return the harmonic numbers H_0 .. H_count."""
    return np.concatenate([[0.0], np.cumsum(1 / np.arange(1, count + 1))])


def chance_average_precision(right: npt.NDArray[np.int64], gallery: int) -> Array:
    """Return the expected average precision of a random order: (q,).

    Args:
        right: (q,) right answers per query, at least 1.
        gallery: candidates N.
    """
    total = harmonic(gallery)[-1]
    if gallery == 1:
        return np.ones(len(right))
    result: Array = ((right - 1) * (gallery - total) / (gallery - 1) + total) / gallery
    return result


def precisions(scores: Tensor, edges: Tensor, beyond: Tensor, right: Tensor) -> Array:
    """Return (3, q): right answers that tie with the best (itself included), average precision, R-precision.

    Args:
        scores: (q, R) of the right answers, ascending; infinite where a query has fewer.
        edges: (2, q, R), upper and lower ends of the bands in which others tie with them.
        beyond: (2, q, R), wrong candidates above the upper end, and not below the lower.
        right: (q,) how many right answers each query has.
    """
    own = right[:, None].double()
    above = own - torch.searchsorted(scores, edges[0], right=True)
    not_below = own - torch.searchsorted(scores, edges[1])
    real = torch.isfinite(scores)
    n, m = beyond[0] + above, beyond[1] - beyond[0] + not_below - above
    tied_right = not_below - above
    sums = torch.from_numpy(harmonic(int((n + m)[real].max())))
    n, m = n.where(real, 0), m.where(real, 1)
    c = (tied_right - 1) / (m - 1).clamp_min(1)
    steps = (sums[(n + m).long()] - sums[n.long()]) / m
    precision = c + (above + 1 - c * (n + 1)) * steps
    within = ((own - n) / m).clamp(0, 1)
    best = tied_right.gather(1, (right[:, None] - 1).clamp_min(0))[:, 0]
    result: Array = torch.stack(
        [best, precision.where(real, 0).sum(1) / right, within.where(real, 0).sum(1) / right]
    ).numpy()
    return result
