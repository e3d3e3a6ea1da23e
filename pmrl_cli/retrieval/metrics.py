"""Retrieval metrics of ranks, their expectation under ties and their chance values.

Let g wrong candidates score above the best right answer of a query, and let t wrong and r right ones, itself
included, score as it does. Tied candidates stand in random order, so that the first right one stands after j of the t
with probability

    P(j) = r / (t + r - j) * prod over i < j of (t - i) / (t + r - i),        j = 0 .. t,

and every metric f of the place is its expectation sum_j P(j) f(g + j). A space in which all points coincide then
scores chance and not 1. Chance is a random order of the whole gallery: g = 0, and all of it ties.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from pmrl_cli.array_types import Array
from pmrl_cli.retrieval.precision import chance_average_precision, harmonic
from pmrl_cli.retrieval.ranks import Answers, Ranks

__all__ = [
    "METRICS",
    "average_precision",
    "chance",
    "expected_rank",
    "harmonic",
    "hits",
    "hits_in_gallery",
    "metric",
    "r_precision",
    "random_order",
    "reciprocal_ranks",
    "standard_gallery",
    "tie_spread",
    "wins",
]


METRICS = ("R@1", "R@5", "R@10", "MRR", "mAP", "R-precision")
"""The metrics that are means over queries."""


def hits(ranks: Ranks, cutoff: int) -> Array:
    """Return the probability that a right answer is among the first ``cutoff``: (q,) in [0, 1]."""
    return _expected((np.arange(ranks.gallery) < cutoff).astype(np.float64), ranks)


def reciprocal_ranks(ranks: Ranks) -> Array:
    """Return the expected 1 / rank of the best right answer: (q,) in (0, 1]."""
    return _expected(1 / np.arange(1, ranks.gallery + 1), ranks)


def expected_rank(ranks: Ranks) -> Array:
    """Return the expected rank of the best right answer: (q,) in [1, gallery]."""
    _, best = _right(ranks)
    rank: Array = 1 + ranks.greater + ranks.tied / (best + 1)
    return rank


def average_precision(ranks: Ranks) -> Array:
    """Return the expected average precision over all right answers: (q,) in (0, 1]; of one it is 1 / rank."""
    return reciprocal_ranks(ranks) if ranks.answers is None else ranks.answers.precision


def r_precision(ranks: Ranks) -> Array:
    """Return the expected share of the R right answers among the first R: (q,) in [0, 1]; of one it is R@1."""
    return hits(ranks, 1) if ranks.answers is None else ranks.answers.r_precision


def wins(ranks: Ranks) -> Array:
    """Return the expected share of the wrong candidates that the best right answer beats: (q,) in [0, 1].

    1 - FOSCTTM where one is right. Queries of which nothing is wrong have 1/2.
    """
    right, _ = _right(ranks)
    wrong = ranks.gallery - right
    share: Array = 1 - (expected_rank(ranks) - 1) / np.maximum(wrong, 1)
    return np.where(wrong > 0, share, 0.5)


def tie_spread(ranks: Ranks) -> float:
    """Return how far R@1 lies between the best and the worst order of the ties: [0, 1], 0 without ties."""
    return float(np.mean((ranks.greater == 0) & (ranks.tied > 0)))


def hits_in_gallery(ranks: Ranks, cutoff: int, size: int) -> Array:
    """Return the probability that the best right answer is among the first ``cutoff`` of a random smaller gallery.

    It holds that answer and ``size`` - 1 of the wrong candidates, so the number that beat it is hypergeometric; ties
    take the mean over the places it may have. Exact, and only for smaller galleries: a query with fewer wrong
    candidates holds all of them.

    Args:
        ranks: of a gallery of at least ``size``.
        cutoff: places that count as found.
        size: candidates, the right answer included.

    Returns: (q,) in [0, 1].
    """
    right, _ = _right(ranks)
    result = np.empty(len(ranks.rows))
    for number in np.unique(right):
        those = right == number
        wrong = ranks.gallery - int(number)
        by_place = _hypergeometric_cdf(cutoff - 1, wrong, min(size - 1, wrong))
        result[those] = _expected(np.append(by_place, np.zeros(int(number) - 1)), _some(ranks, those))
    return result


def standard_gallery(smallest: int) -> int | None:
    """Return the size of the galleries in which recalls are compared: the largest of 1000, 100 and 10 that all fill.

    Args:
        smallest: candidates of the smallest gallery; fewer than 10 fill none.
    """
    return next((size for size in (1000, 100, 10) if size <= smallest), None)


def metric(name: str, ranks: Ranks) -> Array:
    """Return (q,) the values of a metric by its name: one of ``METRICS``, ``median_rank`` or ``AUC``."""
    named = {
        "MRR": reciprocal_ranks,
        "mAP": average_precision,
        "R-precision": r_precision,
        "median_rank": expected_rank,
        "AUC": wins,
    }
    return named[name](ranks) if name in named else hits(ranks, int(name.removeprefix("R@")))


def chance(name: str, ranks: Ranks) -> float:
    """Return the value of a metric for a random order of the candidates, queries and right answers being the same."""
    values = metric(name, random_order(ranks))
    return float(np.median(values) if name == "median_rank" else values.mean())


def random_order(ranks: Ranks) -> Ranks:
    """Return the ranks of the same queries where all candidates tie: their metrics are those of a random order."""
    right, _ = _right(ranks)
    answers = None
    if ranks.answers is not None:
        answers = Answers(right, right, chance_average_precision(right, ranks.gallery), right / ranks.gallery)
    return Ranks(ranks.rows, np.zeros_like(right), ranks.gallery - right, ranks.gallery, answers)


def _right(ranks: Ranks) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return (q,) how many answers are right, and how many of them tie with the best."""
    if ranks.answers is None:
        one = np.ones(len(ranks.rows), dtype=np.int64)
        return one, one
    return ranks.answers.right, ranks.answers.best


def _some(ranks: Ranks, those: npt.NDArray[np.bool_]) -> Ranks:
    answers = ranks.answers
    if answers is not None:
        precisions = answers.precision[those], answers.r_precision[those]
        answers = Answers(answers.right[those], answers.best[those], *precisions)
    return Ranks(ranks.rows[those], ranks.greater[those], ranks.tied[those], ranks.gallery, answers)


def _expected(by_place: Array, ranks: Ranks) -> Array:
    """Return the expectation of a function of the place, over the places that ties leave open: (q,).

    Args:
        by_place: (gallery,) for 0, 1, ... candidates before the first right one.
        ranks: of q queries.
    """
    _, best = _right(ranks)
    sums = np.concatenate([[0.0], np.cumsum(by_place)])
    mean: Array = (sums[ranks.greater + ranks.tied + 1] - sums[ranks.greater]) / (ranks.tied + 1)
    several = np.flatnonzero((best > 1) & (ranks.tied > 0))
    if len(several):
        cases = np.stack([ranks.greater[several], ranks.tied[several], best[several]], axis=1)
        kinds, which = np.unique(cases, axis=0, return_inverse=True)
        values = [float(_places(tied, right) @ by_place[first : first + tied + 1]) for first, tied, right in kinds]
        mean[several] = np.array(values)[which.reshape(-1)]
    alone = (best > 1) & (ranks.tied == 0)
    mean[alone] = by_place[ranks.greater[alone]]
    return mean


def _places(tied: int, right: int) -> Array:
    """Return (tied + 1,) probabilities that 0, 1, ... wrong of the tied stand before the first right one."""
    wrong = np.arange(tied)
    before = np.concatenate([[1.0], np.cumprod((tied - wrong) / (tied + right - wrong))])
    return before * right / (tied + right - np.arange(tied + 1))


@lru_cache(maxsize=64)  # galleries of few sizes are asked again and again
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
