"""Several right answers by the definitions, in float64 loops: one query, one candidate, one order at a time."""

from itertools import pairwise, permutations

import numpy as np

BAND = 2e-6


def right_of(items_a, items_b, match, eligible):
    """Per query item, the first row that has it and the set of first rows of right items; and all candidates."""
    rows = np.flatnonzero(eligible)

    def first(items, row):
        return next(int(i) for i in rows if items[i] == items[row])

    candidates = sorted({first(items_b, row) for row in rows})
    right = {}
    for query in sorted({first(items_a, row) for row in rows}):
        holders = [i for i in rows if items_a[i] == items_a[query]]
        right[query] = {first(items_b, j) for i in holders for j in rows if i == j or match[i] == match[j]}
    return right, candidates


def judged(scores, right):
    """Greater, tied, best, average precision and R-precision of one query.

    Args:
        scores: cosine by candidate.
        right: the candidates that are.
    """
    best = max(scores[y] for y in right)
    wrong = [y for y in scores if y not in right]
    greater = sum(scores[y] > best + BAND for y in wrong)
    tied = sum(abs(scores[y] - best) <= BAND for y in wrong)
    same = sum(abs(scores[y] - best) <= BAND for y in right)
    precision = within = 0.0
    for y in right:
        above = [z for z in scores if z != y and scores[z] > scores[y] + BAND]
        level = [z for z in scores if z != y and abs(scores[z] - scores[y]) <= BAND]
        for place in range(len(level) + 1):  # so many of its equals stand before it
            right_before = len(right & set(above)) + place * len(right & set(level)) / max(1, len(level))
            precision += (1 + right_before) / (1 + len(above) + place) / (len(level) + 1) / len(right)
            within += (1 + len(above) + place <= len(right)) / (len(level) + 1) / len(right)
    return greater, tied, same, precision, within


def of_orders(levels, right):
    """Every metric as the mean over all orders of the candidates that their levels allow.

    Args:
        levels: (N,) scores; equal ones tie.
        right: (N,) bool.
    """
    found = []
    for order in permutations(range(len(levels))):
        if any(levels[a] < levels[b] for a, b in pairwise(order)):
            continue
        places = [place for place, y in enumerate(order, 1) if right[y]]
        found.append(
            {
                **{f"R@{k}": places[0] <= k for k in (1, 2, 5)},
                "MRR": 1 / places[0],
                "rank": places[0],
                "mAP": np.mean([i / place for i, place in enumerate(places, 1)]),
                "R-precision": np.mean([place <= len(places) for place in places]),
            }
        )
    return {name: np.mean([one[name] for one in found]) for name in found[0]}
