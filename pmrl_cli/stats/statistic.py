"""A statistic: a number that never stands alone, but beside its chance value and its interval.

The whole result of ``diagnose`` is nested mappings whose numbers are statistics; ``docs/diagnose.schema.json``
describes it section by section.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal, Self

import numpy as np

from pmrl_cli.array_types import Array, Groups

__all__ = [
    "NORMAL_95",
    "Null",
    "Statistic",
    "Status",
    "clustered_error",
    "group_means",
    "plain",
    "rescaled",
    "upper_tail",
]


Null = Literal["closed_form", "shuffled", "permutation"]
Status = Literal["ok", "n_too_small", "collapsed", "not_applicable", "upper_bound"]

NORMAL_95 = 1.959964
"""Quantile of the standard normal that 97.5 % stay below."""


@dataclass(frozen=True)
class Statistic:
    """A value, what chance would give, and how sure it is.

    Args:
        value: None where the data cannot say it; ``status`` then says why.
        chance: its value (or mean) under the null; None where no null applies.
        ci: 95 % interval, low and high.
        ci_method: how it was made: ``normal``, ``group_bootstrap``, ``poisson``, ``fisher``, ...
        se: standard error of the value.
        p: probability under the null of a value as extreme, in [0, 1].
        n: instances (or queries, or vectors) it rests on.
        null: how ``chance`` is known: a formula, shuffled pairs, or permutations.
        status: ``ok``; ``n_too_small``; ``collapsed``: nothing varies that could be measured; ``not_applicable``;
            ``upper_bound``: the value is no estimate but what it is at most.
    """

    value: float | None
    chance: float | None = None
    ci: tuple[float, float] | None = None
    ci_method: str | None = None
    se: float | None = None
    p: float | None = None
    n: int = 0
    null: Null | None = None
    status: Status = "ok"

    @classmethod
    def normal(
        cls,
        value: float,
        se: float | None,
        *,
        within: tuple[float, float] = (-math.inf, math.inf),
        **fields: Any,  # noqa: ANN401 - those of the class
    ) -> Self:
        """Return a statistic whose interval is that of a normal estimate, cut to the range of the value.

        Args:
            value: the estimate.
            se: its standard error; None leaves the interval out.
            within: least and greatest value there can be.
            **fields: the other fields.
        """
        if se is None or not math.isfinite(se):
            return cls(value, **fields)
        low, high = value - NORMAL_95 * se, value + NORMAL_95 * se
        ci = min(value, max(within[0], low)), max(value, min(within[1], high))
        return cls(value, ci=ci, ci_method="normal", se=se, **fields)

    @classmethod
    def mean(cls, values: Array, groups: Groups, **fields: Any) -> Self:  # noqa: ANN401 - those of ``normal``
        """Return the mean of ``values`` with its normal interval, whose groups (not rows) are independent.

        Args:
            values: (n,).
            groups: (n,) any integers.
            **fields: those of ``normal``.
        """
        error = clustered_error(values, groups)
        return cls.normal(float(values.mean()), error, n=len(values), null="closed_form", **fields)

    @classmethod
    def unknown(cls, status: Status = "n_too_small", **fields: Any) -> Self:  # noqa: ANN401 - those of the class
        """Return a statistic without a value."""
        return cls(None, status=status, **fields)

    def as_dict(self) -> dict[str, Any]:
        """Return the nine fields as JSON values: null for what is not finite, and then never an ``ok``."""
        value = _finite(self.value)
        low, high = (None, None) if self.ci is None else map(_finite, self.ci)
        known = low is not None and high is not None
        return {
            "value": value,
            "chance": _finite(self.chance),
            "ci": [low, high] if known else None,
            "ci_method": self.ci_method if known else None,
            "se": _finite(self.se),
            "p": _finite(self.p),
            "n": int(self.n),
            "null": self.null,
            "status": "n_too_small" if value is None and self.status == "ok" else self.status,
        }


def plain(node: object) -> Any:  # noqa: ANN401 - JSON
    """Return mappings, sequences, arrays, statistics and dataclasses as JSON values, null for what is not finite."""
    if isinstance(node, float):  # first, as nearly all are: NumPy's float64 is one too
        return _finite(node)
    if isinstance(node, Statistic):
        return node.as_dict()
    if is_dataclass(node) and not isinstance(node, type):
        return {field.name: plain(getattr(node, field.name)) for field in fields(node)}
    if isinstance(node, Mapping):
        return {str(key): plain(value) for key, value in node.items()}
    if isinstance(node, np.ndarray):
        values = node.tolist()
        return (
            values
            if node.dtype.kind in "biu" or (node.dtype.kind == "f" and np.isfinite(node).all())
            else plain(values)
        )
    if isinstance(node, list | tuple):
        return [plain(value) for value in node]
    return plain(node.item()) if isinstance(node, np.generic) else node


def upper_tail(z: float) -> float:
    """Return the probability that a standard normal exceeds z."""
    return math.erfc(z / math.sqrt(2)) / 2


def clustered_error(values: Array, groups: Groups) -> float | None:
    """Return the standard error of the mean of ``values``, whose groups (not rows) are independent.

    Args:
        values: (n,).
        groups: (n,) any integers.

    Returns: the error, or None with fewer than two groups.
    """
    _, codes = np.unique(groups, return_inverse=True)
    count = int(codes.max(initial=-1)) + 1
    if count < 2:
        return None
    sums = np.bincount(codes, values - values.mean())
    return float(np.sqrt(count / (count - 1) * (sums**2).sum()) / len(values))


def group_means(vectors: Array, groups: Groups) -> Array:
    """Return the mean vector of each group: (g, d)."""
    _, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    sums = np.zeros((len(sizes), vectors.shape[1]))
    if len(sizes) == len(vectors):  # the usual case, and much cheaper
        sums[codes] = vectors
        return sums
    np.add.at(sums, codes, vectors)
    means: Array = sums / sizes[:, None]
    return means


def rescaled(error: float | None, held: int, count: int) -> float | None:
    """Return the error of a mean over ``count`` instances, from that over ``held`` of them."""
    return None if error is None else error * math.sqrt(held / count)


def _finite(number: float | None) -> float | None:
    return None if number is None or not math.isfinite(number) else float(number)
