"""Picture of a fit: what its history says of every evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from pmrl_cli.report.shape import Result
from pmrl_cli.report.svg import Picture, line_style, picture, plain_axes, short

__all__ = ["epochs"]

_PANELS = (
    ("retrieval", ("mrr", "r1")),
    ("alignment", ("A", "signed", "share")),
    ("saturation, 1 - p1", ("saturation",)),
    ("share of the gradient", "grad_share."),
    ("dimensions in use", "pr_deb."),
    ("loss", ("loss",)),
)


def _columns(lines: Sequence[Mapping[str, Any]], wanted: tuple[str, ...] | str) -> list[str]:
    names = sorted({name for line in lines for name in line})
    return [name for name in names if (name.startswith(wanted) if isinstance(wanted, str) else name in wanted)]


def epochs(result: Result) -> Picture | None:
    """Return the evaluations of the candidate runs of a fit, epoch by epoch."""
    history = (result["training"] or {}).get("history") or []
    runs = {stage: list(lines) for stage, lines in groupby(history, key=lambda line: line["stage"])}
    panels = [(title, names) for title, wanted in _PANELS if (names := _columns(history, wanted))]
    panels = [p for p in panels if any(line.get(name) is not None for line in history for name in p[1])]
    if not panels:
        return None
    columns = 2
    rows = -(-len(panels) // columns)
    figure, axes_of = plain_axes(1.9 * rows + 0.3, columns, rows=rows, sharex=True)
    for axes, (title, names) in zip(axes_of, panels, strict=False):
        for index, name in enumerate(names):
            for number, (stage, lines) in enumerate(runs.items()):
                known = [(line["epoch"], line[name]) for line in lines if line.get(name) is not None]
                if known:
                    x, y = np.array(known, dtype=float).T
                    label = short(name.partition(".")[2] or name, 16) if number == 0 or stage == "refit" else None
                    axes.plot(x, y, linewidth=1.5 if number == 0 else 0.8, label=label, **line_style(index))
        axes.set_title(title)
        if len(names) > 1:
            axes.legend(loc="best")
    for axes in axes_of[len(panels) :]:
        axes.set_axis_off()
    for axes in axes_of[-columns:]:
        axes.set_xlabel("epoch")
    judged = [line for line in history if line.get("mrr") is not None]
    told = ""
    if judged:
        best = max(judged, key=lambda line: float(line["mrr"]))
        told = f" Held-out MRR: {judged[0]['mrr']:.3f} at the start, {best['mrr']:.3f} at epoch {best['epoch']:.1f}."
    return picture(
        "epochs",
        figure,
        heading="Training",
        reading="Held-out instances at each evaluation, from the closed-form start. Thick: the first run; thin: the "
        "other runs of the fit. Alignment that rises while dimensions in use fall is a collapse in the making.",
        alternative=f"Curves of {', '.join(title for title, _ in panels)} for {len(runs)} runs.{told}",
    )
