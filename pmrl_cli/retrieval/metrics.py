"""Retrieval metrics of ranks, their expectation under ties and their chance values.

Tied candidates stand in random order: every metric is the expectation over that order, so a space in which all
points coincide scores chance and not 1. Chance is a random order of the whole gallery.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pmrl_cli.retrieval.ranks import Ranks

__all__ = [
    "chance",
    "expected_rank",
    "harmonic",
    "hits",
    "hits_in_gallery",
    "reciprocal_ranks",
    "tie_spread",
]

Array = npt.NDArray[np.float64]


def hits(ranks: Ranks, cutoff: int) -> Array:
    """Return the probability that each partner is among the first ``cutoff``: (q,) in [0, 1]."""
    found: Array = np.clip((cutoff - ranks.greater) / (ranks.tied + 1), 0, 1)
    return found


def reciprocal_ranks(ranks: Ranks) -> Array:
    """Return the expected 1 / rank of each partner: (q,) in (0, 1]."""
    sums = harmonic(ranks.gallery)
    return _mean_between(sums, ranks)


def expected_rank(ranks: Ranks) -> Array:
    """Return the expected rank of each partner: (q,) in [1, gallery]."""
    rank: Array = 1 + ranks.greater + ranks.tied / 2
    return rank


def tie_spread(ranks: Ranks) -> float:
    """Return how far R@1 lies between the best and the worst order of the ties: [0, 1], 0 without ties."""
    return float(np.mean((ranks.greater == 0) & (ranks.tied > 0)))


def hits_in_gallery(ranks: Ranks, cutoff: int, size: int) -> Array:
    """Return the probability that each partner is among the first ``cutoff`` of a random gallery of ``size``.

    The gallery holds the partner and ``size`` - 1 of the other candidates, so the number that beat it is
    hypergeometric; ties take the mean over the places the partner may have. Exact, and only for smaller galleries.

    Args:
        ranks: of a gallery of at least ``size``.
        cutoff: places that count as found.
        size: candidates, the partner included.

    Returns: (q,) in [0, 1].
    """
    by_place = _hypergeometric_cdf(cutoff - 1, ranks.gallery - 1, size - 1)
    sums = np.concatenate([[0.0], np.cumsum(by_place)])
    return _mean_between(sums, ranks)


def _mean_between(sums: Array, ranks: Ranks) -> Array:
    """Return the mean, over the places ties leave open, of what cumulated to ``sums`` over all places: (q,)."""
    mean: Array = (sums[ranks.greater + ranks.tied + 1] - sums[ranks.greater]) / (ranks.tied + 1)
    return mean


def _hypergeometric_cdf(most: int, others: int, drawn: int) -> Array:
    """Return P(at most ``most`` of b better candidates among ``drawn`` of ``others``) for b = 0..others."""
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, others + 1)))])  # log factorials

    def log_choose(n: npt.NDArray[np.int64], k: npt.NDArray[np.int64] | int) -> Array:
        possible = (k >= 0) & (k <= n)
        safe = np.where(possible, k, 0)
        return np.where(possible, logs[n] - logs[safe] - logs[n - safe], -np.inf)

    better = np.arange(others + 1)
    total = np.zeros(others + 1)
    for hit in range(min(most, drawn) + 1):
        ways = log_choose(better, hit) + log_choose(others - better, drawn - hit)
        total += np.exp(ways - log_choose(np.array(others), drawn))
    return np.minimum(total, 1)


def harmonic(count: int) -> Array:
    """Return the harmonic numbers H_0 .. H_count."""
    return np.concatenate([[0.0], np.cumsum(1 / np.arange(1, count + 1))])


def chance(metric: str, gallery: int) -> float:
    """Return the value of a metric for a random order of ``gallery`` candidates: K/N, H_N/N, (N + 1)/2."""
    if metric == "MRR":
        return float(harmonic(gallery)[-1] / gallery)
    if metric == "median_rank":
        return (gallery + 1) / 2
    return min(1.0, int(metric.removeprefix("R@")) / gallery)
