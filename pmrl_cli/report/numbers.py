"""Numbers as people read them, the same on the screen and on the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["ci_text", "metric_text", "number_text"]

_FIXED = 1e-3  # numbers below it need an exponent to say anything


def number_text(value: float | None) -> str:
    """Return a number in at most seven characters, ``-`` for none."""
    if value is None:
        return "-"
    size = abs(value)
    if 0 < size < _FIXED:
        return f"{value:.0e}"
    return f"{value:.3f}" if size < 10 else f"{value:.1f}" if size < 10_000 else f"{value:.0f}"


def ci_text(ci: Sequence[float] | None) -> str:
    """Return an interval, ``-`` for none."""
    if ci is None:
        return "-"
    small = max(map(abs, ci)) < _FIXED
    return " .. ".join(number_text(bound) if small or abs(bound) >= _FIXED else f"{bound:.3f}" for bound in ci)


def metric_text(metric: str, result: Mapping[str, Any]) -> str:
    """Return the name of a metric, that of the standard gallery with its size."""
    size = (result["retrieval"] or {}).get("standard_gallery")
    return f"R@1 in {size:,}" if metric == "R@1_standard" and size else metric
