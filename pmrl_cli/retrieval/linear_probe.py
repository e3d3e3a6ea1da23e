"""How well a linear map of the vectors predicts a label: a ridge classifier, evaluated on groups not fitted on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve

from pmrl_cli.array_types import Array

__all__ = ["FOLDS", "RIDGES", "held_out_predictions"]

FOLDS = 5

RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""What the ridge is chosen from, in units of the mean variance of a direction."""

Numbers = npt.NDArray[np.int64]

_ROWS = 2**14  # whose scores of all classes are held at once


class _Moments(NamedTuple):
    """Sums over rows: their number, x, the one-hot y, x x' and x y'. Those of disjoint rows add up."""

    rows: float
    x: Array
    y: Array
    xx: Array
    xy: Array

    @classmethod
    def of(cls, vectors: npt.NDArray[np.floating], classes: Numbers, count: int) -> _Moments:
        x = vectors.astype(np.float64)
        xy = np.zeros((count, x.shape[1]))
        np.add.at(xy, classes, x)
        return cls(float(len(x)), x.sum(0), np.bincount(classes, minlength=count).astype(float), x.T @ x, xy.T)

    def without(self, *others: _Moments) -> _Moments:
        """Return the sums over the rows that are in none of the others."""
        return _Moments(*(whole - sum(parts) for whole, *parts in zip(self, *others, strict=True)))


class _Classifier(NamedTuple):
    """Scores p + (x - m)' W of the classes."""

    mean: Array
    shares: Array
    weights: Array

    @classmethod
    def fitted(cls, moments: _Moments, ridge: float) -> _Classifier:
        mean, shares = moments.x / moments.rows, moments.y / moments.rows
        scatter = moments.xx - np.outer(moments.x, mean)
        variance = np.trace(scatter) / len(scatter)
        if variance <= 0:  # every vector is the same
            return cls(mean, shares, np.zeros_like(moments.xy))
        scatter[np.diag_indices_from(scatter)] += ridge * variance
        return cls(mean, shares, cho_solve(cho_factor(scatter), moments.xy - np.outer(mean, moments.y)))

    def predict(self, vectors: npt.NDArray[np.floating]) -> Numbers:
        pieces = (vectors[i : i + _ROWS] for i in range(0, len(vectors), _ROWS))
        scores = (self.shares + (piece - self.mean) @ self.weights for piece in pieces)
        return np.concatenate([np.empty(0, np.int64), *(one.argmax(1) for one in scores)])


def held_out_predictions(
    vectors: npt.NDArray[np.floating], classes: Numbers, groups: Numbers, *, seed: int = 0
) -> Numbers | None:
    """Predict the class of each instance from its vector, by a classifier fitted on other groups.

    With m and p the means of the vectors x and of the one-hot labels y of the rows it is fitted on,

        W = (sum (x - m)(x - m)' + lambda v I)^-1 sum (x - m)(y - p)',    v = tr(sum (x - m)(x - m)') / d,

    and an instance is given the class of the largest score p + W' (x - m). The groups are split into ``FOLDS`` folds.
    For each fold, lambda is the one of ``RIDGES`` that is right most often on the next fold when fitted on the three
    others (of equals the smallest); the classifier is then fitted on all four.

    Args:
        vectors: (n, d).
        classes: (n,) from 0 to C - 1.
        groups: (n,) instances of a group are in one fold.
        seed: of the folds.

    Returns: (n,) predicted classes; None with fewer groups than folds.

    Source: ridge regression of the indicators of the classes (Hastie, Tibshirani, Friedman, *The Elements of
        Statistical Learning*, 2009, sections 3.4.1 and 4.2), cross-fitted.
    """
    _, codes = np.unique(groups, return_inverse=True)
    count = int(codes.max(initial=-1)) + 1
    if count < FOLDS:
        return None
    folds = np.random.default_rng(seed).permutation(count)[codes] % FOLDS
    parts = [folds == fold for fold in range(FOLDS)]
    kinds = int(classes.max()) + 1
    moments = [_Moments.of(vectors[part], classes[part], kinds) for part in parts]
    whole = _Moments(*(sum(sums) for sums in zip(*moments, strict=True)))
    predictions = np.empty(len(vectors), np.int64)
    for fold, part in enumerate(parts):
        watched = (fold + 1) % FOLDS
        fewer, seen = whole.without(moments[fold], moments[watched]), parts[watched]

        def right(ridge: float, fewer: _Moments = fewer, seen: npt.NDArray[np.bool_] = seen) -> int:
            return int((_Classifier.fitted(fewer, ridge).predict(vectors[seen]) == classes[seen]).sum())

        ridge = max(RIDGES, key=right)  # the first of equals
        predictions[part] = _Classifier.fitted(whole.without(moments[fold]), ridge).predict(vectors[part])
    return predictions
