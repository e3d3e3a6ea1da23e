"""Numbers, metrics and remedies as people read them, the same on the screen and on the page."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["action_text", "ci_text", "difference_text", "metric_text", "number_text"]

_ACTIONS = {
    "centre": "centre each modality",
    "csls": "after centring, CSLS at search",
    "linear": "refit a linear adapter",
    "drop_modality": "leave out",
    "drop_suspects": "fit without the suspects",
}

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
    """Return the name of a metric; one that has a gallery, with its size."""
    size = (result["retrieval"] or {}).get("standard_gallery")
    if metric == "R@1_standard" and size:
        return f"R@1 in {size:,}"
    sized = re.fullmatch(r"(.*R@\d+)@(\d+)", metric)
    return f"{sized[1]} in {int(sized[2]):,}" if sized else metric


def difference_text(name: str, result: Mapping[str, Any]) -> str:
    """Return the name of a difference from another diagnosis."""
    if "->" in name:
        return f"R@1 {name}"
    return "MRR, others for one" if name == "fused.MRR" else metric_text(name, {"retrieval": result["compare"]})


def action_text(action: str, subject: list[str]) -> str:
    """Return a remedy in words."""
    words = _ACTIONS.get(action, action)
    if action == "drop_modality":
        return f"{words} {', '.join(subject)}"
    return f"{words} ({', '.join(subject)})" if subject else words
