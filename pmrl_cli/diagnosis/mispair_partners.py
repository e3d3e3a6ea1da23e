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

from pmrl_cli.array_types import Array
from pmrl_cli.stats.consensus import EDGES

__all__ = ["Held", "PartnerMixture", "hold"]


_CELLS = 40
_BULK = 0.9
"""Quantile of each null above which a score is one of the bulk of partners; cells end at the median of the bulk."""

_KNOTS = np.linspace(0, 0.9, 5)
"""Where the line may end and the parabola begin, 0 at the lowest cell and 1 at the highest."""

_STEPS, _GRID = 100, 50
_FURTHEST = 2.0  # of a Newton step
_HIGHEST = 30.0  # of the log of a density


class Held(NamedTuple):
    """Values at which the weight of some components together is held, each in a fit of its own.

    Args:
        parts: the components.
        values: (g,).
    """

    parts: Sequence[int]
    values: Array


def hold(weights: Array, held: Sequence[Held]) -> None:
    """Scale the (..., 1 + g, p) weights of components that are held, in place; the first fit is free.

    Args:
        weights: of the free fit and of those of every ``held``, one after the other.
        held: what is held.
    """
    start = 1
    for parts, values in held:
        rows, parts = slice(start, start + len(values)), list(parts)
        of_parts = weights[..., rows, parts]
        total = of_parts.sum(-1, keepdims=True)
        shares = np.where(total > 1e-12, of_parts / np.maximum(total, 1e-12), 1 / len(parts))
        weights[..., rows, parts] = shares * values[:, None]
        start = rows.stop


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

    def fit(self, held: Sequence[Held] = ()) -> tuple[Array, Array]:
        """Return (g, p) weights of largest likelihood, and (g,) that: of the free fit, and of those that are held.

        By expectation maximization, with a Newton step for the partners, for every knot; the best knot is taken.
        """
        rows = 1 + sum(len(one.values) for one in held)
        totals = np.maximum(self.parts.sum(1), 1e-12)
        knots = len(self.shape)
        weights = np.tile(0.05 * max(20.0, self.counts.sum()) / len(totals) / totals, (knots, rows, 1))
        log_density = np.zeros((knots, rows, 3))
        log_density[...] = np.log(max(1.0, self.counts[-1])) - self.width[-1], 3.0, 0.5
        for _ in range(_STEPS):
            hold(weights, held)
            partners = self._partners(log_density)
            ratio = self.counts / np.maximum(weights @ self.parts + partners, 1e-12)
            weights = weights * (ratio @ self.parts.T) / totals
            log_density = self._newton(log_density, partners, partners * ratio)
        hold(weights, held)
        expected = np.maximum(weights @ self.parts + self._partners(log_density), 1e-12)
        reached = (self.counts * np.log(expected) - expected).sum(2)
        best, row = reached.argmax(0), np.arange(rows)
        return weights[best, row], reached[best, row]

    def _partners(self, log_density: Array) -> Array:
        """Return (t, g, c) expected partners."""
        log_count = log_density @ self.shape.transpose(0, 2, 1) + self.width
        partners: Array = np.exp(np.minimum(log_count, _HIGHEST))
        return partners

    def _newton(self, log_density: Array, partners: Array, wanted: Array) -> Array:
        """Return the (t, g, 3) weights after one step of a Poisson fit, the density rising and log-concave."""
        products = self.shape[..., _ROW] * self.shape[..., _COLUMN]
        curvature = partners @ products
        curvature[..., :3] += 1e-6 * (1 + partners.sum(2, keepdims=True))
        both, line = _solved(np.moveaxis(curvature, -1, 0), np.moveaxis((wanted - partners) @ self.shape, -1, 0))
        moved = log_density + _bounded(both)
        bent = moved[..., 2] < 0
        if bent.any():
            moved[bent, :2] = log_density[bent, :2] + _bounded(line[bent])
            moved[bent, 2] = 0
        moved[..., 1] = np.maximum(moved[..., 1], 0)
        return moved


_ROW, _COLUMN = [0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]
"""Entries of a symmetric 3 x 3 matrix: the diagonal, then what is above it."""


def _solved(matrix: Array, right: Array) -> tuple[Array, Array]:
    """Solve positive definite systems of three equations, and of the first two of them, by their LDL' factors.

    Args:
        matrix: (6, ...) entries of each, in the order of ``_ROW`` and ``_COLUMN``.
        right: (3, ...).

    Returns: (..., 3) and (..., 2) solutions.
    """
    first, middle, last, a, b, c = matrix
    low_a, low_b = a / first, b / first
    second = middle - low_a * a
    low_c = (c - low_a * b) / second
    third = last - low_b * b - low_c * low_c * second
    y = right[1] - low_a * right[0]
    x2 = (right[2] - low_b * right[0] - low_c * y) / third
    x1, line1 = y / second - low_c * x2, y / second
    scaled = right[0] / first
    whole = np.stack([scaled - low_a * x1 - low_b * x2, x1, x2], -1)
    return whole, np.stack([scaled - low_a * line1, line1], -1)


def _bounded(step: Array) -> Array:
    """Return steps no coordinate of which is longer than the furthest."""
    longest = np.maximum(np.abs(step).max(-1, keepdims=True), 1e-12)
    bounded: Array = step * np.minimum(1, _FURTHEST / longest)
    return bounded
