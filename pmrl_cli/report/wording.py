"""Numbers, metrics and remedies as people read them, the same on the screen and on the page."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pmrl_cli.report.shape import Result, at

__all__ = [
    "MARKS",
    "action_text",
    "ci_text",
    "difference_text",
    "helps",
    "main_numbers",
    "metric_text",
    "mispair_text",
    "number_text",
]

MARKS = {"fail": "x", "warn": "!", "info": " "}
"""Of severities, where there may be no colour."""

_MAIN = (
    ("A", "agreement above chance (A)", "alignment.A"),
    ("R@1_standard", "partner ranked first of {gallery} (R@1)", "retrieval.pairwise.R@1_standard"),
    ("R@1", "partner ranked first of all (R@1)", "retrieval.pairwise.R@1"),
    ("AUC", "partner ranked above another (AUC)", "retrieval.pairwise.AUC"),
    ("MRR", "mean reciprocal rank (MRR)", "retrieval.pairwise.MRR"),
    ("label_mAP", "its label ranked first (mAP)", "retrieval.pairwise.label_mAP"),
    ("fused.MRR", "MRR, fused query", "retrieval.fused.MRR"),
)
_MOST_MAIN = 5

_ACTIONS = {
    "centre": "centre each modality",
    "csls": "after centring, CSLS at search",
    "rotate": "after centring, rotate into one frame",
    "linear": "refit a linear adapter",
    "drop_modality": "leave out",
    "drop_suspects": "fit without the suspects",
}

_FIXED = 1e-3  # numbers below it need an exponent to say anything


def number_text(value: float | None) -> str:
    """Return a number with three digits, ``-`` for none."""
    if value is None:
        return "-"
    size = abs(value)
    if 0 < size < _FIXED:
        return f"{value:.0e}"
    for digits, limit in ((3, 1), (2, 10), (1, 100)):
        if round(size, digits) < limit:
            return f"{value:.{digits}f}"
    return f"{value:,.0f}"


def main_numbers(result: Result) -> list[tuple[str, str, Mapping[str, Any]]]:
    """Return the key, the name in words and the statistic of the numbers that matter, five at most."""
    gallery = at(result, "retrieval.standard_gallery")
    found = [
        (key, words.format(gallery=f"{gallery or 0:,}"), number)
        for key, words, path in _MAIN
        if (number := at(result, path)) is not None and not (key == "R@1" and gallery)
    ]
    return found[:_MOST_MAIN]


def mispair_text(result: Result) -> str:
    """Return, in one sentence, how many instances are estimated to be mispaired, "" where it was not asked."""
    suspects = result["suspects"]
    if not suspects:
        return ""
    if suspects["flagged"]:
        return (
            f"{suspects['flagged']:,} of {suspects['instances']:,} instances are rather mispaired than not: "
            "look at them before you drop them."
        )
    hidden = [
        f"{found['mispair_rate']['ci'][1]:.1%} of {name}"
        for name, found in result["modality"].items()
        if at(found, "mispair_rate.status") == "upper_bound" and found["mispair_rate"]["ci"]
    ]
    unseen = f"; too few to be seen may be, up to {', '.join(hidden)}" if hidden else ""
    return f"No instance stands out as mispaired{unseen}."


def helps(remedy: Mapping[str, Any]) -> bool:
    """Whether the gain of a remedy is beyond chance."""
    return bool(remedy["delta"]["ci"]) and remedy["delta"]["ci"][0] > 0


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
    """Return the name of a difference from another diagnosis; R@1 with how many candidates it is among."""
    galleries = {way: one["gallery"] for way, one in result["outcomes"]["directions"].items()}
    if "->" in name:
        return f"R@1 {name} in all {galleries[name]:,}"
    if name == "R@1":
        sizes = sorted({size for way, size in galleries.items() if way in result["compare"]["delta"]})
        return f"R@1 in all {' to '.join(f'{size:,}' for size in dict.fromkeys((sizes[0], sizes[-1])))}"
    return "MRR, fused query" if name == "fused.MRR" else metric_text(name, {"retrieval": result["compare"]})


def action_text(action: str, subject: list[str]) -> str:
    """Return a remedy in words."""
    words = _ACTIONS.get(action, action)
    if action == "drop_modality":
        return f"{words} {', '.join(subject)}"
    return f"{words} ({', '.join(subject)})" if subject else words
