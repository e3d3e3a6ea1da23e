"""Pictures of where the vectors lie: offsets, dimensions, hubs, similarities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb

from pmrl_cli.report.shape import Result, modalities, pairs, value_at
from pmrl_cli.report.svg import (
    FAINT,
    INK,
    MARKERS,
    SERIES,
    Picture,
    key_above,
    line_style,
    logarithmic,
    picture,
    plain_axes,
    short,
)
from pmrl_cli.report.wording import number_text

__all__ = ["eigenvalues", "gap_map", "hub_counts", "label_map", "similarity"]

_JOINED = 40
_POINTS = 500  # in all: each costs 100 bytes of the page
_MOST_COMPONENTS = 64
_MOST_CLASSES = 5
_SHADE = (0.35, 0.45, 0.75)  # of similarities: seen on white and on black
_POISSON_MEAN = 10


def gap_map(result: Result) -> Picture | None:
    """Return the joint PCA before and after centring."""
    pca = result["plot"].get("pca")
    if not pca or not any(len(points) for points in pca["before"].values()):
        return None
    figure, panels = plain_axes(2.7, 2)
    for axes, (key, title) in zip(
        panels, (("before", "as they are"), ("centred", "each modality centred")), strict=True
    ):
        clouds = {
            name: np.asarray(pca[key][name], dtype=float).reshape(-1, 2)
            for name, _ in modalities(result)
            if name in pca[key]
        }
        partners = list(clouds.values())
        for line in zip(*(cloud[:_JOINED] for cloud in partners), strict=False):
            axes.plot(*np.array(line).T, color=FAINT, linewidth=0.5, zorder=1)
        for index, (name, cloud) in enumerate(clouds.items()):
            look: dict[str, Any] = {
                "color": SERIES[index % 6],
                "marker": MARKERS[index % 6],
                "label": short(name, 16),
            }
            across, up = cloud[: _POINTS // len(clouds)].T
            axes.scatter(across, up, s=9, alpha=0.75, linewidths=0, zorder=2, **look)
        axes.set_title(title)
        axes.set(xticks=[], yticks=[])
        axes.margins(0.06)
    key_above(figure, panels[0])
    gaps = {name: value_at(pair, "gap.gap_share") for name, pair in pairs(result)}
    phrases = "; ".join(f"{name}: {g:.0%} of the distance is an offset" for name, g in gaps.items() if g is not None)
    return picture(
        "gap",
        figure,
        heading="Projection by modality",
        reading="First two principal components of all modalities together. Lines join the vectors of one instance "
        f"({_JOINED} of them). Islands of one modality on the left that fall together on the right are a constant "
        "offset, which centring takes away; lines that stay long are not. Two components show little of the rest.",
        alternative=f"Two scatter plots, before and after centring. {phrases}.",
    )


def label_map(result: Result) -> Picture | None:
    """Return the joint PCA coloured by label: the five largest classes, the others faint."""
    pca = result["plot"].get("pca") or {}
    labels = pca.get("labels") or []
    counts = Counter(label for label in labels if label is not None)
    if len(counts) < 2:
        return None
    largest = sorted(counts, key=lambda label: (-counts[label], label))[:_MOST_CLASSES]
    colours = dict(zip(largest, SERIES, strict=False))
    figure, (axes,) = plain_axes(3.2)
    most = _POINTS // (2 * len(pca["before"]))
    for index, (name, _) in enumerate(modalities(result)):
        across, up = np.asarray(pca["before"][name], dtype=float).reshape(-1, 2)[:most].T
        order = sorted(range(len(across)), key=lambda place: labels[place] in colours)  # the others underneath
        of = [colours.get(labels[place], FAINT) for place in order]
        axes.scatter(across[order], up[order], s=9, alpha=0.75, linewidths=0, c=of, marker=MARKERS[index % 6])
    for label, colour in colours.items():
        axes.scatter([], [], color=colour, label=f"{short(label, 16)} ({counts[label]})")
    axes.set(xticks=[], yticks=[])
    axes.margins(0.06)
    key_above(figure, axes)
    return picture(
        "labels",
        figure,
        heading="Projection by label",
        reading="The same points as in the projection by modality, as they are; colour: the largest classes of "
        f"{result['inputs']['label']}, faint: the others; shape: modality. A class whose shapes lie together is "
        "aligned; colours that separate are labels that the space separates.",
        alternative=f"Scatter plot of {len(labels)} instances in {len(counts)} classes.",
    )


def eigenvalues(result: Result) -> Picture | None:
    """Return the covariance spectra with the dimensions in use."""
    listed = {name: np.asarray(m.get("eigenvalues") or [0.0], dtype=float) for name, m in modalities(result)}
    spectra = {name: values[values > 0] / values[0] for name, values in listed.items() if values[0] > 0}
    if not spectra:
        return None
    figure, (axes,) = plain_axes(2.8)
    phrases = []
    for index, (name, values) in enumerate(spectra.items()):
        order = np.arange(1, len(values) + 1)
        used = result["modality"][name]["participation_ratio"]["value"]
        label = f"{short(name, 16)}: {number_text(used)} dims"
        kept = np.unique(np.geomspace(1, len(values), _MOST_COMPONENTS).astype(int)) - 1
        axes.plot(order[kept], values[kept], label=label, **line_style(index))
        if used is not None and 1 <= used <= len(values):
            height = np.interp(used, order, values)
            axes.plot(used, height, marker=MARKERS[index % 6], color=SERIES[index % 6], markersize=7)
        phrases.append(f"{name} uses {number_text(used)} of {result['inputs']['dims'][name]} dimensions")
    floor = max(1e-6, min(values.min() for values in spectra.values()))
    axes.set(xscale="log", yscale="log", xlabel="component", ylabel="variance, of the first", ylim=(floor / 2, 1.6))
    logarithmic(axes.xaxis, axes.yaxis)
    key_above(figure, axes)
    return picture(
        "dimensions",
        figure,
        heading="Dimensions in use",
        reading="Variance along each principal component. The marker stands at the debiased participation ratio: how "
        "many dimensions of equal variance the cloud is worth. A cliff at the left is a collapse.",
        alternative="Curves of variance by component. " + "; ".join(phrases) + ".",
    )


def hub_counts(result: Result) -> Picture | None:
    """Return how often candidates are among the ten nearest, beside Poisson."""
    found: dict[str, Mapping[str, Any]] = {}
    for _, pair in pairs(result):
        ways = {name: way.get("hubness", {}) for name, way in sorted(pair["retrieval"].items())}
        found |= {name: one for name, one in ways.items() if one.get("counts")}
    if not found:
        return None
    worst = sorted(found, key=lambda name: -(found[name]["skewness"]["value"] or 0))[:4]
    figure, (axes,) = plain_axes(2.6)
    longest = 0
    for index, name in enumerate(worst):
        counts = np.asarray(found[name]["counts"], dtype=float)
        longest = max(longest, len(counts))
        label = f"{short(name)}, skew {number_text(found[name]['skewness']['value'])}"
        axes.plot(np.arange(len(counts)), counts / max(counts.sum(), 1), label=label, **line_style(index))
    expected = np.exp(-_POISSON_MEAN) * np.cumprod(np.append(1, _POISSON_MEAN / np.arange(1, longest)))
    axes.plot(np.arange(longest), expected, color=INK, linewidth=1, linestyle="--", label="Poisson(10), no hubs")
    axes.set(xlabel=f"times among the 10 nearest (last: {longest - 1} or more)", ylabel="share of candidates")
    axes.set_ylim(bottom=0)
    key_above(figure, axes)
    phrases = "; ".join(f"{name}: skew {number_text(found[name]['skewness']['value'])}" for name in worst)
    return picture(
        "hubs",
        figure,
        heading="Hubs",
        reading="How often each candidate is among the ten nearest of a query; without hubs that is Poisson of mean "
        "10. A long right tail is a few candidates that answer everything, mass at 0 candidates that no query finds. "
        "The four directions with the most skew are shown.",
        alternative=f"Curves. {phrases}; without hubs .32.",
    )


def similarity(result: Result) -> Picture | None:
    """Return thumbnails of the cosines between instances."""
    found = result["plot"].get("similarity") or {}
    matrices = {name: np.asarray(found[name], dtype=float) for name, _ in pairs(result) if found.get(name)}
    if not matrices:
        return None
    shown = list(matrices)[:6]
    columns = min(3, len(shown))
    figure, panels = plain_axes(1.75 * -(-len(shown) // columns), columns, rows=-(-len(shown) // columns))
    for axes, name in zip(panels, shown, strict=False):
        low, high = np.quantile(matrices[name], [0.02, 0.99])
        shade = np.clip((matrices[name] - low) / max(high - low, 1e-9), 0, 1)
        image = np.empty((*shade.shape, 4))
        image[..., :3], image[..., 3] = to_rgb(_SHADE), shade
        axes.imshow(image, interpolation="none")
        axes.set_title(short(name, 18))
        axes.set(xticks=[], yticks=[])
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    phrases = "; ".join(
        f"{name}: diagonal mean {np.diag(matrices[name]).mean():.2f}, elsewhere "
        f"{(matrices[name].sum() - np.trace(matrices[name])) / max(matrices[name].size - len(matrices[name]), 1):.2f}"
        for name in shown
    )
    return picture(
        "similarities",
        figure,
        heading="Similarities",
        reading=f"Cosines between {max(map(len, matrices.values()))} instances: first modality down, second "
        "across, partners on the diagonal; the darker (on a dark page: the brighter), the more alike. A clean "
        "diagonal is alignment; stripes are hubs; an even square is a collapse or no pairing.",
        alternative=f"Similarity matrices. {phrases}.",
    )
