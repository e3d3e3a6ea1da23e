"""Low scores as a mixture of nulls and of partners whose density has one hump: mispaired vectors where partners end.

Of two modalities no third says how noisy partners score. What is known is the shape of their scores: the log of
their density falls from its mode downwards, at first by a parabola and then by a line (a normal core with an
exponential tail: Huber, Ann. Math. Stat. 35, 1964), so that it has one hump. Vectors swapped with others are a hump
of their own below it, wherever it lies: with any instance, with one of a class, with a near neighbour. Fitting the
logarithm of a density as a sum of few functions is Lindsey's method (JRSS-B 36, 1974; Efron, JASA 99, 2004, for a
null), here of the partners instead, the nulls being known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pmrl_cli.stats.consensus import EDGES

__all__ = ["PartnerMixture"]

Array = npt.NDArray[np.float64]

_CELLS = 40
_BULK = 0.9
"""Quantile of each null above which a score is one of the bulk of partners; cells end at the median of the bulk."""

_KNOTS = np.linspace(0, 0.9, 5)
"""Where the line may end and the parabola begin, 0 at the lowest cell and 1 at the highest."""

_STEPS, _GRID = 100, 50
_FURTHEST = 2.0  # of a Newton step
_HIGHEST = 30.0  # of the log of a density


class PartnerMixture(NamedTuple):
    """Low scores as a mixture of nulls and of partners.

    Args:
        counts: (c,) instances in cells of the score.
        parts: (p, c) mass of each null in each cell.
        shape: (t, c, 3) functions of the score whose sum is the log density of partners, for each knot: 1, a line
            that rises to 0 at the highest cell, and a parabola that falls above the knot.
        width: (c,) log widths of the cells.
    """

    counts: Array
    parts: Array
    shape: Array
    width: Array

    @classmethod
    def of(cls, score: Array, mispaired: npt.NDArray[np.int64]) -> PartnerMixture:
        """Return that of the scores up to the median of the bulk of partners.

        Args:
            score: (s,) of the instances.
            mispaired: (p, bins) counts over ``EDGES``.
        """
        below = np.cumsum(mispaired, axis=1) / mispaired.sum(1, keepdims=True)
        bulk = max(float(EDGES[int(np.searchsorted(one, _BULK)) + 1]) for one in below)
        above = score[score > bulk]
        top = float(np.median(above)) if len(above) else bulk
        first = float(EDGES[int(np.searchsorted(below[0], 0.01)) + 1])
        top = max(top, first + 2 * float(EDGES[1] - EDGES[0]))
        cuts = np.unique(np.searchsorted(EDGES, np.linspace(first, top, _CELLS + 1)))
        ends = EDGES[cuts].copy()
        cuts[0] = 0
        counts = np.histogram(score, EDGES[cuts])[0].astype(np.float64)
        parts = np.diff(np.concatenate([np.zeros((len(below), 1)), below], axis=1)[:, cuts], axis=1)
        middles = (ends[1:] + ends[:-1]) / 2
        place = (middles - middles[0]) / max(float(middles[-1] - middles[0]), 1e-12)
        falls = np.maximum(place - _KNOTS[:, None], 0) ** 2 / (1 - _KNOTS[:, None]) ** 2
        line = np.broadcast_to(place - 1, falls.shape)
        return cls(counts, parts, np.stack([np.ones_like(falls), line, -falls], axis=2), np.log(np.diff(ends)))

    def candidates(self, held: Sequence[int], design: float) -> Array:
        """Return (g,) weights of some nulls together, finer towards 0, up to all counts and some more."""
        most = float(self.counts.sum() / self.parts[list(held)].sum(1).min()) + 20 * design
        return most * np.linspace(0, 1, _GRID) ** 2

    def fit(self, fixed: Sequence[int] = (), values: Array | None = None) -> tuple[Array, Array]:
        """Return (g, p) weights of largest likelihood, and (g,) that; the sum of some may be given (g,) values.

        By expectation maximization, with a Newton step for the partners, for every knot; the best knot is taken.
        """
        held, rows = list(fixed), 1 if values is None else len(values)
        totals = np.maximum(self.parts.sum(1), 1e-12)
        knots = len(self.shape)
        weights = np.tile(0.05 * max(20.0, self.counts.sum()) / len(totals) / totals, (knots, rows, 1))
        log_density = np.zeros((knots, rows, 3))
        log_density[...] = np.log(max(1.0, self.counts[-1])) - self.width[-1], 3.0, 0.5
        for _ in range(_STEPS):
            self._hold(weights, held, values)
            partners = self._partners(log_density)
            ratio = self.counts / np.maximum(weights @ self.parts + partners, 1e-12)
            weights = weights * (ratio @ self.parts.T) / totals
            log_density = self._newton(log_density, partners, partners * ratio)
        self._hold(weights, held, values)
        expected = np.maximum(weights @ self.parts + self._partners(log_density), 1e-12)
        reached = (self.counts * np.log(expected) - expected).sum(2)
        best, row = reached.argmax(0), np.arange(rows)
        return weights[best, row], reached[best, row]

    @staticmethod
    def _hold(weights: Array, held: list[int], values: Array | None) -> None:
        """Scale the (t, g, p) weights of some components to a sum of (g,) values, in place."""
        if values is not None:
            total = weights[..., held].sum(2, keepdims=True)
            shares = np.where(total > 1e-12, weights[..., held] / np.maximum(total, 1e-12), 1 / len(held))
            weights[..., held] = shares * values[:, None]

    def _partners(self, log_density: Array) -> Array:
        """Return (t, g, c) expected partners."""
        log_count = log_density @ self.shape.transpose(0, 2, 1) + self.width
        partners: Array = np.exp(np.minimum(log_count, _HIGHEST))
        return partners

    def _newton(self, log_density: Array, partners: Array, wanted: Array) -> Array:
        """Return the (t, g, 3) weights after one step of a Poisson fit, the density rising and log-concave."""
        products = (self.shape[..., :, None] * self.shape[..., None, :]).reshape(*self.shape.shape[:2], 9)
        size = partners.sum(2)[..., None, None]
        curvature = (partners @ products).reshape(*partners.shape[:2], 3, 3) + 1e-6 * np.eye(3) * (1 + size)
        slope = ((wanted - partners) @ self.shape)[..., None]
        moved = log_density + _bounded(np.linalg.solve(curvature, slope)[..., 0])
        bent = moved[..., 2] < 0
        if bent.any():
            line = np.linalg.solve(curvature[bent][:, :2, :2], slope[bent][:, :2])[..., 0]
            moved[bent] = np.append(log_density[bent][:, :2] + _bounded(line), np.zeros((len(line), 1)), axis=1)
        moved[..., 1] = np.maximum(moved[..., 1], 0)
        return moved


def _bounded(step: Array) -> Array:
    """Return steps no coordinate of which is longer than the furthest."""
    longest = np.maximum(np.abs(step).max(-1, keepdims=True), 1e-12)
    bounded: Array = step * np.minimum(1, _FURTHEST / longest)
    return bounded
