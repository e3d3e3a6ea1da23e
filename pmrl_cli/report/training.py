"""Picture of a fit: what its history says of every evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from pmrl_cli.report.shape import Result, kept_run
from pmrl_cli.report.svg import INK, Picture, line_style, picture, plain_axes, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["epochs"]

_PANELS = (
    ("retrieval", ("mrr", "r1")),
    ("alignment", ("A", "signed", "share")),
    ("saturation, 1 - p1", ("saturation",)),
    ("share of the gradient", "gradient_share."),
    ("dimensions in use", "participation_ratio."),
    ("loss", ("loss",)),
)
_NAMES = {"mrr": "MRR", "r1": "R@1", "share": "rho"}


def _columns(lines: Sequence[Mapping[str, Any]], wanted: tuple[str, ...] | str) -> list[str]:
    names = sorted({name for line in lines for name in line})
    return [name for name in names if (name.startswith(wanted) if isinstance(wanted, str) else name in wanted)]


def epochs(result: Result) -> Picture | None:
    """Return the evaluations of every run of a fit, epoch by epoch; None where nothing was trained."""
    history = (result["training"] or {}).get("history") or []
    runs = {stage: list(lines) for stage, lines in groupby(history, key=lambda line: line["stage"])}
    panels = [(title, names) for title, wanted in _PANELS if (names := _columns(history, wanted))]
    if not panels or len({line["epoch"] for line in history}) < 2:  # starts alone: nothing that went on
        return None
    shown = kept_run(result["training"]) or {"stage": next(iter(runs)), "epoch": None}
    kept = {one["stage"] for one in result["training"].get("kept") or ()} | {shown["stage"]}
    columns = 2
    rows = -(-len(panels) // columns)
    figure, axes_of = plain_axes(1.7 * rows + 0.3, columns, rows=rows, sharex=True)
    explained: dict[tuple[str, ...], Axes] = {}
    for axes, (title, names) in zip(axes_of, panels, strict=False):
        for index, name in enumerate(names):
            for stage, lines in runs.items():
                known = [(line["epoch"], line[name]) for line in lines if line.get(name) is not None]
                if known:
                    x, y = np.array(known, dtype=float).T
                    label = _NAMES.get(name) or short(name.partition(".")[2] or name, 16)
                    axes.plot(
                        x,
                        y,
                        linewidth=1.7 if stage in kept else 0.7,
                        label=label if stage == shown["stage"] else None,
                        marker="." if len(x) == 1 else None,
                        **line_style(index),
                    )
        if shown["epoch"] is not None:
            axes.axvline(shown["epoch"], color=INK, linewidth=0.8, linestyle="--")
        axes.set_title(title)
        if len(names) > 1:  # what several panels show is explained in the last of them
            explained[tuple(axes.get_legend_handles_labels()[1])] = axes
    for axes in explained.values():
        axes.legend(loc="best", fontsize=7, handlelength=1.5)
    for axes in axes_of[len(panels) :]:
        axes.set_axis_off()
    for axes in axes_of[len(panels) - columns : len(panels)]:
        axes.set_xlabel("epoch")
        axes.tick_params(labelbottom=True)
    evaluated = [line for line in history if line["stage"] == shown["stage"] and line.get("mrr") is not None]
    phrase = ""
    if evaluated:
        best = max(evaluated, key=lambda line: float(line["mrr"]))
        start = evaluated[0]["mrr"]
        phrase = f" Held-out MRR {start:.3f} at the start, {best['mrr']:.3f} at epoch {best['epoch']:.1f}."
    return picture(
        "epochs",
        figure,
        heading="Training",
        reading="Validation instances at each evaluation, from the closed-form start. Thick: runs that were kept, "
        "the best up to the dashed line; thin: others. Alignment that rises while dimensions in use fall is "
        "a collapse in the making.",
        alternative=f"Curves of {', '.join(title for title, _ in panels)} for {len(runs)} runs.{phrase}",
    )
