"""Rules about the clouds of single modalities and the gap between two."""

from __future__ import annotations

from collections.abc import Iterator

from pmrl_cli.diagnosis.rules.rule import Finding, ResultView, Rule, gain_text, helps

__all__ = ["RULES"]

CONE = 0.5
COLLAPSED_CONE = 0.95
SEPARATED_AUC = 0.9
"""Where partners beat this share of the other candidates instances are distinct: a cone is no collapse."""
LOW_DIMENSION = 3.0
LOW_DIMENSION_SHARE = 0.04
FEWEST_SHARE = 4
"""Few columns leave few dimensions: only less than a quarter of them in use is a collapse."""
GAP_SHARE = 0.25
GAP_PENALTY = 0.05
CENTRING_GAIN = 0.05
SHAPE_GAP = 0.2
SHAPE_PENALTY = 0.1
SKEW = 1.5
SCALING_GAIN = 0.02


def _auc(view: ResultView, name: str) -> float | None:
    """Return the mean AUC over the directions that name a modality."""
    values = []
    for pair in view.pairs:
        if name in pair.split("|"):
            for direction in view.node("pair", pair, "retrieval") or ():
                value = view.value("pair", pair, "retrieval", direction, "AUC")
                values += [] if value is None else [value]
    return sum(values) / len(values) if values else None


def _collapse(view: ResultView) -> Iterator[Finding]:
    for name in view.names:
        cone, auc = view.value("modality", name, "mean_cosine"), _auc(view, name)
        if cone is not None and auc is not None and cone > COLLAPSED_CONE and auc < SEPARATED_AUC:
            text = f"{name}: all instances lie near one point (mean cosine {cone:.3f}, AUC {auc:.3f})"
            advice = "raise the weight of the instance term or lower its temperature, then fit again"
            yield Finding("COLLAPSE", "fail", (name,), (f"modality.{name}.mean_cosine",), text, advice)


def _cone(view: ResultView) -> Iterator[Finding]:
    for name in view.names:
        cone, auc = view.value("modality", name, "mean_cosine"), _auc(view, name)
        if cone is not None and auc is not None and cone > CONE and auc >= SEPARATED_AUC:
            text = f"{name}: instances share a direction (mean cosine {cone:.3f}) but are distinct"
            advice = "centre it if modalities are searched together; else leave it"
            yield Finding("CONE", "info", (name,), (f"modality.{name}.mean_cosine",), text, advice)


def _dimensions(view: ResultView) -> Iterator[Finding]:
    for name in view.names:
        value = view.value("modality", name, "participation_ratio")
        # A modality cannot use more dimensions than its files have columns.
        room = min(view.result["inputs"]["dims"][name], view.result["inputs"]["columns"][name])
        floor = min(max(LOW_DIMENSION, LOW_DIMENSION_SHARE * room), room / FEWEST_SHARE)
        if value is not None and value < floor:
            text = f"{name}: only {value:.1f} of {room} dimensions are in use"
            advice = "fit with a smaller --dim, or with more weight on the instance term"
            yield Finding("DIM_COLLAPSE", "warn", (name,), (f"modality.{name}.participation_ratio",), text, advice)


def _costly(view: ResultView, pair: str, least: float) -> bool:
    penalty = view.statistic("pair", pair, "gap", "mixed_penalty")
    return penalty is not None and penalty["value"] > least and penalty["ci"] is not None and penalty["ci"][0] > 0


def _offset(view: ResultView) -> Iterator[Finding]:
    centring, mixed = view.remedy("centre"), view.remedy("centre", kind="mixed ")
    wide, costly = {}, []
    for pair in view.pairs:
        share = view.value("pair", pair, "gap", "gap_share")
        if share is not None and share > GAP_SHARE:
            wide[pair] = share
            if _costly(view, pair, GAP_PENALTY):
                costly.append(pair)
    centring_helps = helps(centring, CENTRING_GAIN)
    if not wide or not (costly or centring_helps):
        return
    subject = tuple(wide) if centring_helps else tuple(costly)
    text = f"modality gap: a constant offset is up to {max(wide.values()):.0%} of the distance between partners"
    if centring_helps and centring is not None:
        advice = f"centre each modality: {gain_text(centring)} (a fit does)"
    elif mixed is not None and helps(mixed):
        advice = f"centre each modality if both are searched in one gallery: {gain_text(mixed)}"
    else:
        advice = "fit adapters if both are searched in one gallery: centring alone does not help"
    evidence = tuple(f"pair.{pair}.gap.{key}" for pair in subject for key in ("gap_share", "mixed_penalty"))
    evidence = tuple(path for path in evidence if path in view.seen)
    yield Finding("MODALITY_GAP", "warn", subject, evidence, text, advice)


def _shapes(view: ResultView) -> Iterator[Finding]:
    for pair in view.pairs:
        shape = view.statistic("pair", pair, "gap", "covariance_gap")
        if shape is None or shape["value"] - (shape["chance"] or 0.0) <= SHAPE_GAP:
            continue
        if _costly(view, pair, SHAPE_PENALTY):
            text = f"{pair}: the clouds differ in shape ({shape['value']:.3f}, 0 alike, 1 disjoint)"
            advice = "centring cannot fix it: fit adapters, or whiten each modality"
            evidence = (f"pair.{pair}.gap.covariance_gap", f"pair.{pair}.gap.mixed_penalty")
            yield Finding("COV_GAP", "warn", (pair,), evidence, text, advice)


def _hubs(view: ResultView) -> Iterator[Finding]:
    scaling = view.remedy("csls")
    skews = {}
    for pair in view.pairs:
        for direction in view.node("pair", pair, "retrieval") or ():
            skew = view.value("pair", pair, "retrieval", direction, "hubness", "skewness")
            if skew is not None and skew > SKEW:
                skews[pair, direction] = skew
    if not skews or scaling is None or not helps(scaling, SCALING_GAIN):
        return
    subject = tuple(dict.fromkeys(pair for pair, _ in skews))
    text = f"few candidates are neighbours of most queries (skewness up to {max(skews.values()):.1f}, by chance 0.3)"
    advice = f"centre, then take the nearness of the neighbours off at search (CSLS): {gain_text(scaling)}"
    evidence = tuple(f"pair.{pair}.retrieval.{direction}.hubness.skewness" for pair, direction in skews)
    yield Finding("HUBNESS", "warn", subject, evidence, text, advice)


RULES = (
    Rule("COLLAPSE", f"mean cosine above {COLLAPSED_CONE:g} and pair AUC below {SEPARATED_AUC:g}", _collapse),
    Rule("CONE", f"mean cosine above {CONE:g} and pair AUC {SEPARATED_AUC:g} or more", _cone),
    Rule(
        "DIM_COLLAPSE",
        f"fewer dimensions in use than {LOW_DIMENSION:g} and {LOW_DIMENSION_SHARE:.0%}, and than a quarter",
        _dimensions,
    ),
    Rule(
        "MODALITY_GAP",
        f"offset above {GAP_SHARE:.0%} of the distance that costs {GAP_PENALTY:g} R@1, mixed or until centred",
        _offset,
    ),
    Rule("COV_GAP", f"shapes {SHAPE_GAP:g} apart beyond chance that cost {SHAPE_PENALTY:g} R@1 when mixed", _shapes),
    Rule("HUBNESS", f"skewness above {SKEW:g} and a gain above {SCALING_GAIN:g} by CSLS after centring", _hubs),
)
