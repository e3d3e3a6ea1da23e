"""Pictures of what is suspect, what could be aligned, and what would help."""

from __future__ import annotations

import numpy as np

from pmrl_cli.report.alignment import rebinned
from pmrl_cli.report.shape import Result, modalities, pairs
from pmrl_cli.report.svg import (
    FAINT,
    INK,
    SERIES,
    Picture,
    few_ticks,
    key_above,
    line_style,
    logarithmic,
    picture,
    plain_axes,
    short,
)
from pmrl_cli.report.wording import action_text, ci_text, helps, metric_text, number_text

__all__ = ["canonical_correlations", "remedy_gains", "suspect_scores"]

_MOST_PANELS = 9
_NARROWEST = 0.05
_LEAST_SHARE = 1e-3  # of mispaired instances


def suspect_scores(result: Result) -> Picture | None:
    """Return the scores of partners beside those of mispaired ones."""
    found = {name: m["suspect_histogram"] for name, m in modalities(result) if m.get("suspect_histogram")}
    drawn = {name: rebinned(histogram) for name, histogram in found.items()}
    drawn = {name: one for name, one in drawn.items() if len(one[0])}
    if not drawn:
        return None
    drawn = dict(list(drawn.items())[:_MOST_PANELS])
    columns = min(3, len(drawn))
    rows = -(-len(drawn) // columns)
    figure, panels = plain_axes(0.5 + 1.6 * rows, columns, rows=rows)
    phrases = []
    for axes, (name, (edges, densities)) in zip(panels, drawn.items(), strict=False):
        rate = result["modality"][name].get("mispair_rate") or {"value": None, "ci": None, "status": "not_applicable"}
        axes.stairs(densities["observed"], edges, color=SERIES[0], label="partners")
        axes.stairs(densities["shuffled"], edges, color=INK, linestyle="--", linewidth=1, label="mispaired")
        title = short(name, 18)
        if rate["status"] == "ok" and rate["value"] >= _LEAST_SHARE:
            # What a share of mispaired instances would look like under the observed outline.
            axes.stairs(rate["value"] * densities["shuffled"], edges, fill=True, color=SERIES[1], alpha=0.5)
            title += f": {rate['value']:.1%}"
        few_ticks(axes.xaxis)
        phrases.append(f"{name}: {number_text(rate['value'])} mispaired, 95 % interval {ci_text(rate['ci'])}")
        axes.set_title(title)
        axes.set(yticks=[], xlabel="agreement")
        axes.spines["left"].set_visible(False)
    for axes in panels[len(drawn) :]:
        axes.set_axis_off()
    key_above(figure, panels[0])
    return picture(
        "suspects",
        figure,
        heading="Mispaired instances",
        reading="How well each modality's vector agrees with the others of its instance (leave-one-out consensus, "
        "CSLS). Dashed: what mispaired vectors give. Filled: the share of the observed ones that looks like them. "
        "A swap with a near-duplicate looks like a right pair.",
        alternative="Densities. " + "; ".join(phrases) + ".",
    )


def canonical_correlations(result: Result) -> Picture | None:
    """Return held-out canonical correlations beside those where they were fitted."""
    probes = {name: p["probe"] for name, p in pairs(result) if p.get("probe") and p["probe"]["correlations"]}
    if not probes:
        return None
    shown = sorted(probes, key=lambda name: -(probes[name]["shared_dimensions"]["value"] or 0))[:6]
    figure, (axes,) = plain_axes(2.8)
    for index, name in enumerate(shown):
        probe = probes[name]
        held = np.asarray(probe["correlations"], dtype=float)
        label = f"{short(name)}: {number_text(probe['shared_dimensions']['value'])} shared dims"
        axes.plot(np.arange(1, len(held) + 1), held, label=label, **line_style(index))
        if probe.get("correlations_fitted"):
            fitted = np.asarray(probe["correlations_fitted"], dtype=float)
            axes.plot(
                np.arange(1, len(fitted) + 1), fitted, color=line_style(index)["color"], linewidth=0.6, alpha=0.6
            )
    axes.axhline(0, color=FAINT, linewidth=0.8)
    axes.set(
        xlabel="canonical direction", ylabel="correlation", xscale="log", ylim=(min(-0.1, axes.get_ylim()[0]), 1.02)
    )
    logarithmic(axes.xaxis)
    key_above(figure, axes)
    phrases = "; ".join(
        f"{name}: {number_text(probes[name]['shared_dimensions']['value'])} shared dimensions, held-out R@1 "
        f"{number_text(probes[name]['R@1']['value'])} in {probes[name]['gallery']}"
        for name in shown
    )
    return picture(
        "probe",
        figure,
        heading="What could be aligned",
        reading="Correlation along the directions that ridge-CCA finds on one half of the instances, measured on the "
        "other. Thick: held out, which is what counts; thin: where it was fitted, which overfitting lifts.",
        alternative=f"Curves of canonical correlation. {phrases}.",
    )


def remedy_gains(result: Result) -> Picture | None:
    """Return the measured gains of the remedies, if one of them helps."""
    tried = [one for one in result["remedies"] if one["delta"]["value"] is not None]
    if not any(map(helps, tried)):
        return None
    rows = np.arange(len(tried))[::-1]
    figure, (axes,) = plain_axes(0.8 + 0.3 * len(tried))
    axes.axvline(0, color=INK, linewidth=1)
    phrases, labels = [], []
    for row, one in zip(rows, tried, strict=True):
        delta = one["delta"]
        look = {"color": SERIES[0], "alpha": 0.5} if helps(one) else {"color": "none", "edgecolor": FAINT}
        axes.barh(row, delta["value"], height=0.6, **look)
        if delta["ci"] is not None:
            axes.plot(delta["ci"], [row, row], color=INK, linewidth=1.2)
        name = action_text(one["action"], one["subject"])
        phrases.append(f"{name}: {delta['value']:+.3f} {metric_text(one['metric'], result)}, {ci_text(delta['ci'])}")
        labels.append(f"{short(name, 34)}\n{metric_text(one['metric'], result)}")
    axes.set_yticks(rows, labels, fontsize=7.5)
    axes.tick_params(axis="y", length=0)
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, -_NARROWEST), max(high, _NARROWEST))  # a gain of nothing shall not fill the figure
    axes.set_xlabel("gain on instances held out")
    return picture(
        "remedies",
        figure,
        heading="What would help",
        reading="Each remedy fitted on one half of the instances and measured on the other, and back. Thin line: "
        "95 % interval of the paired difference. Filled: the interval lies above 0; the others are no advice.",
        alternative="Gains. " + "; ".join(phrases) + ".",
    )
