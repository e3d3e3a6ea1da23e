"""The page: verdict, numbers, pictures, notes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pmrl_cli.report import alignment, geometry, remedies, shape, training
from pmrl_cli.report.svg import drawing
from pmrl_cli.report.wording import action_text, ci_text, difference_text, metric_text, number_text

__all__ = ["render_page", "render_training_page"]

_PICTURES = (
    alignment.share_histogram,
    remedies.remedy_gains,
    alignment.singular_values,
    alignment.gallery_curve,
    alignment.modality_bars,
    remedies.suspect_scores,
    remedies.canonical_correlations,
    geometry.gap_map,
    geometry.eigenvalues,
    geometry.hub_counts,
    geometry.similarity,
    training.epochs,
)

_HEADLINE = (
    ("Adjusted alignment A", "alignment.A"),
    ("sigma_1² / k (rho)", "alignment.rho"),
    ("Signed alignment", "alignment.signed"),
    ("Pair AUC", "retrieval.pairwise.AUC"),
    ("R@1_standard", "retrieval.pairwise.R@1_standard"),
    ("R@1", "retrieval.pairwise.R@1"),
    ("MRR", "retrieval.pairwise.MRR"),
    ("MRR, the others ask for one", "retrieval.fused.MRR"),
    ("Label mAP", "retrieval.pairwise.label_mAP"),
)

_MAPS = (
    ("adjusted cosine", "cosine_adjusted"),
    ("R@1_standard", "R@1_standard"),
    ("gap share", "gap.gap_share"),
    ("probe R@1", "probe.R@1"),
    ("adjusted CKA", "cka_adjusted"),
)

_MOST_STATISTICS = 600  # those of six modalities; they grow with the pairs, and the page stays under a megabyte


def render_page(result: Mapping[str, Any], notes: Sequence[tuple[str, str, str]]) -> str:
    """Return the page of a diagnosis: see ``pmrl_cli.report.render``."""
    with drawing():
        pictures = [found for draw in _PICTURES if (found := draw(result)) is not None]
    statistics = list(shape.statistics(result))
    environment = _environment()
    environment.filters |= {
        "action": action_text,
        "difference": lambda name: difference_text(name, result),
        "metric": lambda metric: metric_text(metric, result),
    }
    return environment.get_template("page.html").render(
        result=result,
        headline=[
            (metric_text(name, result), one)
            for name, path in _HEADLINE
            if (one := shape.at(result, path)) is not None
        ],
        maps=list(_pair_maps(result)),
        statistics=statistics[:_MOST_STATISTICS],
        left_out=max(0, len(statistics) - _MOST_STATISTICS),
        differences=shape.differences(result),
        pictures=pictures,
        notes=notes,
        symbols={"fail": "✗", "warn": "!", "info": "✓"},
    )


def render_training_page(result: Mapping[str, Any]) -> str:
    """Return the page of how a fit went: see ``pmrl_cli.report.render``."""
    with drawing():
        found = training.epochs({"training": result})
    names = dict.fromkeys(name for line in result["history"] for name in line)
    first = ("stage", "step", "epoch", "mrr", "r1")
    columns = [*first, *sorted(name for name in names if name not in first)]
    pictures = [] if found is None else [found]
    page = _environment().get_template("training.html")
    return page.render(result=result, pictures=pictures, columns=columns, maps=[])


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("pmrl_cli.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"interval": ci_text, "number": number_text, "svg": Markup}
    return environment


def _pair_maps(result: Mapping[str, Any]) -> Iterator[tuple[str, list[list[dict[str, Any] | None]]]]:
    """Yield the matrices of pairs: a title, and rows of cells; row asks, column answers."""
    names = result["inputs"]["modalities"]
    for title, path in _MAPS:
        cells = [[_pair_cell(result, a, b, path) for b in names] for a in names]
        if any(cell is not None for row in cells for cell in row):
            yield metric_text(title, result), cells


def _pair_cell(result: Mapping[str, Any], a: str, b: str, path: str) -> dict[str, Any] | None:
    pair = result["pair"].get(f"{a}|{b}") or result["pair"].get(f"{b}|{a}")
    if pair is None:
        return None
    # A direction's name may hold dots: it is a key, not a path.
    found = pair["retrieval"].get(f"{a}->{b}", {}).get(path) if path == "R@1_standard" else shape.at(pair, path)
    if found is None or found["value"] is None:
        return None
    return {**found, "shade": min(max(found["value"], 0), 1)}
