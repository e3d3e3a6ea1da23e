"""The page: verdict, numbers, pictures, notes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pmrl_cli.report import alignment, geometry, remedies, shape, training
from pmrl_cli.report.svg import PALETTE, Picture, drawing
from pmrl_cli.report.wording import (
    action_text,
    ci_text,
    difference_text,
    helps,
    main_numbers,
    metric_text,
    mispair_text,
    number_text,
)

__all__ = ["TRAINING", "pictures_of", "render_page", "render_training_page"]

TRAINING = "pmrl.training/1"

_PICTURES = (
    alignment.share_histogram,
    remedies.remedy_gains,
    alignment.singular_values,
    alignment.gallery_curve,
    alignment.modality_bars,
    remedies.suspect_scores,
    remedies.canonical_correlations,
    geometry.gap_map,
    geometry.label_map,
    geometry.eigenvalues,
    geometry.hub_counts,
    geometry.similarity,
    training.epochs,
)

_MAPS = (
    ("adjusted cosine", "cosine_adjusted"),
    ("R@1_standard", "R@1_standard"),
    ("gap share", "gap.gap_share"),
    ("probe R@1", "probe.R@1"),
    ("adjusted CKA", "cka_adjusted"),
)

_MOST_STATISTICS = 600  # those of six modalities; they grow with the pairs, and the page stays under a megabyte


def pictures_of(result: Mapping[str, Any]) -> list[Picture]:
    """Return the figures of a diagnosis, or of how a fit went."""
    with drawing():
        if result["schema"] == TRAINING:
            found = training.epochs({"training": result})
            return [] if found is None else [found]
        return [found for draw in _PICTURES if (found := draw(result)) is not None]


def render_page(
    result: Mapping[str, Any], notes: Sequence[tuple[str, str, str]], origin: Sequence[tuple[str, str]]
) -> str:
    """Return the page of a diagnosis: see ``pmrl_cli.report.render``."""
    pictures = pictures_of(result)
    statistics = list(shape.statistics(result))
    headline = main_numbers(result)
    gains = _no_gains(result)
    maps = list(_pair_maps(result))
    findings = "What else was found" if result["verdict"]["findings"][1:] else "What else was checked"
    sections = (
        ("why", findings, True),
        ("numbers", "Main numbers", headline),
        ("gains", "What would help", gains),
        ("compare", "Comparison", result["compare"]),
        ("pairs", "Pairs", maps),
        *((one.name, one.heading, True) for one in pictures),
        ("notes", "What the numbers are", True),
    )
    model = result["inputs"].get("model")
    environment = _environment()
    environment.filters |= {
        "action": action_text,
        "difference": lambda name: difference_text(name, result),
        "metric": lambda metric: metric_text(metric, result),
        "share": lambda value: f"{100 * min(max(value or 0, 0), 1):.1f}%",
    }
    return environment.get_template("page.html").render(
        result=result,
        contents=[(name, heading) for name, heading, there in sections if there],
        findings=findings,
        origin=[("model", model), *origin] if model else origin,
        headline=headline,
        gains=gains,
        mispaired=mispair_text(result),
        maps=maps,
        statistics=statistics[:_MOST_STATISTICS],
        left_out=max(0, len(statistics) - _MOST_STATISTICS),
        differences=shape.differences(result),
        pictures=pictures,
        notes=notes,
        symbols={"fail": "✗", "warn": "!", "info": "✓"},
    )


def _no_gains(result: Mapping[str, Any]) -> str:
    """Return a sentence where remedies were tried and none helps, else ""."""
    tried = [one for one in result["remedies"] if one["delta"]["value"] is not None]
    if not tried or any(map(helps, tried)):
        return ""
    names = dict.fromkeys(action_text(one["action"], one["subject"]) for one in tried)
    return f"None of what was tried on held-out halves gains anything beyond chance: {'; '.join(names)}."


def render_training_page(result: Mapping[str, Any], origin: Sequence[tuple[str, str]]) -> str:
    """Return the page of how a fit went: see ``pmrl_cli.report.render``."""
    names = dict.fromkeys(name for line in result["history"] for name in line)
    first = ("stage", "step", "epoch", "mrr", "r1")
    columns = [*first, *sorted(name for name in names if name not in first)]
    pictures = pictures_of(result)
    contents = [*((one.name, one.heading) for one in pictures), ("evaluations", "Evaluations")]
    page = _environment().get_template("training.html")
    return page.render(result=result, pictures=pictures, columns=columns, maps=[], contents=contents, origin=origin)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("pmrl_cli.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["palette"] = list(PALETTE.items())
    environment.filters |= {"command": _command, "interval": ci_text, "number": number_text, "svg": Markup}
    return environment


def _command(text: str) -> Markup:
    """Return a command whose options stay whole where a line ends: browsers break after hyphens."""
    option = Markup('<span class="option">{}</span>')
    return Markup(" ").join(option.format(word) if word.startswith("-") else word for word in text.split(" "))


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
