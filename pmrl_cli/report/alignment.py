"""Pictures of how aligned the modalities are: shares, singular values, retrieval, the part of each modality."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pmrl_cli.report.shape import Result, modalities, value_at
from pmrl_cli.report.svg import (
    FAINT,
    INK,
    SERIES,
    Picture,
    beside,
    few_ticks,
    key_above,
    logarithmic,
    picture,
    plain_axes,
    short,
)
from pmrl_cli.report.wording import ci_text, number_text

__all__ = ["gallery_curve", "modality_bars", "share_histogram", "singular_values"]

_MOST_BARS = 60


def rebinned(histogram: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return edges and densities of a histogram in at most 60 bins between its first and last count."""
    edges = np.asarray(histogram["edges"], dtype=float)
    counts = {kind: np.asarray(histogram[kind], dtype=float) for kind in ("observed", "shuffled")}
    filled = np.flatnonzero(sum(counts.values()))
    if len(filled) == 0:
        return edges[:0], counts
    first, last = filled[0], filled[-1] + 1
    step = -(-(last - first) // _MOST_BARS)
    starts = np.arange(first, last, step)
    edges = np.append(edges[starts], edges[last])
    densities = {}
    for kind, count in counts.items():
        summed = np.add.reduceat(count[:last], starts)
        densities[kind] = summed / max(summed.sum(), 1) / np.diff(edges)
    return edges, densities


def share_histogram(result: Result) -> Picture | None:
    """Return the shares of the leading eigenvalue, observed and shuffled."""
    alignment = result["alignment"]
    if alignment is None:
        return None
    edges, densities = rebinned(alignment["histogram"])
    if len(edges) == 0:
        return None
    figure, (axes,) = plain_axes(2.4)
    axes.stairs(densities["observed"], edges, fill=True, color=SERIES[0], alpha=0.35)
    axes.stairs(densities["observed"], edges, color=SERIES[0], linewidth=1.6, label="observed")
    axes.stairs(densities["shuffled"], edges, color=INK, linewidth=1.4, linestyle="--", label="shuffled pairs")
    rho = alignment["rho"]
    top = axes.get_ylim()[1]
    means = [rho["value"], rho["chance"]]
    for value, style, colour in zip(means, ("-", "--"), (SERIES[0], INK), strict=True):
        if value is not None:
            axes.axvline(value, color=colour, linestyle=style, linewidth=1)
            lower = value == min(one for one in means if one is not None) and means[0] != means[1]
            beside(axes, f"mean {number_text(value)}", (value, top * 1.06), left=lower)
    axes.set(xlabel="share of the leading eigenvalue, sigma_1² / k", yticks=[], ylim=(0, top * 1.12))
    axes.spines["left"].set_visible(False)
    key_above(figure, axes)
    adjusted = alignment["A"]
    return picture(
        "shares",
        figure,
        heading="Beyond chance?",
        reading="Each instance has one share: 1 where its modalities lie on one line, 1/k where they are orthogonal. "
        "The dashed outline is what the same vectors give when their pairs are shuffled. What counts is how far the "
        "filled shape lies to the right of it; A is that distance over the room that is left to 1.",
        alternative=f"Histogram. Observed mean {number_text(rho['value'])}, shuffled mean "
        f"{number_text(rho['chance'])}; agreement above chance (A) {number_text(adjusted['value'])}, 95 % interval "
        f"{ci_text(adjusted['ci'])}.",
    )


def singular_values(result: Result) -> Picture | None:
    """Return the singular values of the instances with their spread."""
    values = (result["alignment"] or {}).get("singular_values")
    if not values:
        return None
    count = len(values)
    low, middle, high = (np.array([one[q] for one in values]) for q in ("q05", "q50", "q95"))
    order = np.arange(1, count + 1)
    figure, (axes,) = plain_axes(2.4)
    axes.fill_between(order, low, high, color=SERIES[0], alpha=0.3, linewidth=0)
    axes.plot(order, middle, color=SERIES[0], marker="o", markersize=4)
    for x, y in zip(order, middle, strict=True):
        axes.annotate(number_text(y), (x, y), xytext=(6, 4), textcoords="offset points", fontsize=8)
    for level, text in ((np.sqrt(count), f"√{count}: all alike"), (1, "1: orthogonal")):
        axes.axhline(level, color=FAINT, linestyle="--", linewidth=1)
        axes.text(count + 0.45, level, text, va="bottom", ha="right", fontsize=8)
    axes.set(xticks=order, xticklabels=[f"sigma {i}" for i in order], xlim=(0.6, count + 0.5))
    axes.set_ylim(0, np.sqrt(count) * 1.15)
    axes.set_ylabel("singular value")
    listed = ", ".join(
        f"sigma_{i} {y:.2f} ({a:.2f} to {b:.2f})" for i, y, a, b in zip(order, middle, low, high, strict=True)
    )
    return picture(
        "spectrum",
        figure,
        heading="Spectrum of an instance",
        reading="Line: median over the instances that have all modalities; band: 5 % to 95 % of them. Aligned "
        "modalities lift sigma 1 to √k and leave nothing for the others.",
        alternative=f"Medians and 5 to 95 % ranges: {listed}. Full alignment would be sigma_1 {np.sqrt(count):.2f}.",
    )


def gallery_curve(result: Result) -> Picture | None:
    """Return mean R@1 against the size of the gallery."""
    curve = (result["retrieval"] or {}).get("curve") or []
    curve = [point for point in curve if point["R@1"]["value"] is not None]
    if len(curve) < 2:
        return None
    sizes = np.array([point["gallery"] for point in curve])
    values = np.array([point["R@1"]["value"] for point in curve])
    bounds = np.array([point["R@1"]["ci"] or [point["R@1"]["value"]] * 2 for point in curve])
    figure, (axes,) = plain_axes(2.4)
    axes.fill_between(sizes, bounds[:, 0], bounds[:, 1], color=SERIES[0], alpha=0.3, linewidth=0)
    axes.plot(sizes, values, color=SERIES[0], label="R@1, mean over directions")
    axes.plot(sizes, 1 / sizes, color=INK, linestyle="--", linewidth=1, label="chance, 1 / gallery")
    axes.set(xscale="log", xlabel="gallery: candidates of each query", ylabel="R@1", ylim=(0, 1.02))
    logarithmic(axes.xaxis)
    key_above(figure, axes)
    return picture(
        "gallery",
        figure,
        heading="Retrieval by gallery size",
        reading="How often the partner is ranked first among so many random candidates: exact, from the ranks, "
        "downwards only. Compare data sets at one size. Band: 95 % interval.",
        alternative="; ".join(
            f"R@1 among {size:,}: {value:.2f}" for size, value in zip(sizes[::4], values[::4], strict=True)
        )
        + f"; among {sizes[-1]:,}: {values[-1]:.2f}.",
    )


def modality_bars(result: Result) -> Picture | None:
    """Return what each modality contributes."""
    kinds: list[tuple[str, str, float, tuple[int, int | None]]] = [
        ("consensus_auc", "agreement (AUC)", 0.5, (0, 1)),
        ("loading", "load", 1.0, (0, None)),
        ("gradient_share", "share of gradient", 1 / max(len(result["modality"]), 1), (0, None)),
    ]
    sections = modalities(result)
    kinds = [kind for kind in kinds if any(value_at(found, kind[0]) is not None for _, found in sections)]
    if not kinds:
        return None
    rows = np.arange(len(sections))[::-1]
    figure, panels = plain_axes(0.9 + 0.28 * len(sections), len(kinds), sharey=True)
    phrases = []
    for panel, (axes, (key, title, level, limits)) in enumerate(zip(panels, kinds, strict=True)):
        for row, (name, section) in zip(rows, sections, strict=True):
            found = section.get(key)
            if found is None or found["value"] is None:
                beside(axes, "not known", (0, row))
                continue
            value = found["value"]
            axes.barh(row, value, height=0.62, color=SERIES[panel], alpha=0.45, edgecolor=SERIES[panel])
            if found["ci"] is not None:
                axes.plot(found["ci"], [row, row], color=INK, linewidth=1.2)
            beside(axes, number_text(value), (0, row))
            phrases.append(f"{name}: {key} {number_text(value)}")
        axes.axvline(level, color=INK, linestyle="--", linewidth=1)
        axes.set_title(title, fontsize=8)
        axes.set_xlim(*limits)
        few_ticks(axes.xaxis)
        axes.set_yticks(rows, [short(name, 12) for name, _ in sections])
        axes.tick_params(axis="y", length=0)
    return picture(
        "modalities",
        figure,
        heading="Each modality",
        reading="AUC: how often a modality's own vector agrees better with the consensus of the others than another "
        "instance's (.5 is chance). Load: 1 where all modalities carry the shared direction alike. Gradient: what is "
        "left for training to pull on; 1/k where it is even. Dashed: chance or even; thin line: 95 % interval.",
        alternative="Bars. " + "; ".join(phrases) + ".",
    )
