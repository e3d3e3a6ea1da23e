"""Rules from statistics to findings: what is wrong, on what evidence, and what to do.

The statistical part of a rule (z, interval, chance) is not a matter of taste; the cut-offs below are conventions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Finding", "judge", "overall"]

FEW_INSTANCES = 200
FEW_GROUPS = 50
PAIRED_Z = 4.0
"""Beyond it pairs are told from shuffled ones: under the null 1 in 30,000."""
ANTI_ADJUSTED = -0.2
CONE = 0.5
COLLAPSED_CONE = 0.95
SEPARATED_AUC = 0.9
"""Partners that beat this share of the other candidates are told apart: a cone above it is no collapse, and
modalities below it are not called aligned."""
LOW_DIMENSION = 3.0
LOW_DIMENSION_SHARE = 0.04
FEWEST_SHARE = 4
"""Few columns leave few dimensions: only less than a quarter of them in use is a collapse."""
ODD_SHARE = 0.6
ODD_FLOOR = 0.1
TIE_SPREAD = 0.005
GAP_SHARE = 0.25
CENTRING_GAIN = 0.05

_SEVERITIES = ("fail", "warn", "info")


@dataclass(frozen=True)
class Finding:
    """A rule that fired.

    Args:
        code: its name.
        severity: ``fail``, ``warn`` or ``info``.
        subject: the modalities or pairs it is about; empty for all.
        evidence: dotted paths of the statistics it rests on.
        text: what was found, with the numbers.
        advice: what to do.
    """

    code: str
    severity: str
    subject: tuple[str, ...]
    evidence: tuple[str, ...]
    text: str
    advice: str


def overall(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the verdict: the gravest finding's code and severity, and all findings."""
    first = findings[0]
    return {
        "code": first.code,
        "severity": first.severity,
        "text": first.text,
        "findings": [asdict(finding) for finding in findings],
        "not_fired": [],
    }


def judge(result: Mapping[str, Any]) -> list[Finding]:
    """Return the findings, gravest first; never empty.

    Args:
        result: the JSON values of the diagnosis (``docs/diagnose.schema.json``), less its verdict.
    """
    inputs, pair, modality, retrieval = (result[key] for key in ("inputs", "pair", "modality", "retrieval"))
    findings = [*_few(inputs), *_dimensions(inputs, modality), *_pairing(pair), *_odd_one_out(inputs, pair)]
    if retrieval is not None:
        findings += [*_points(pair, modality), *_gap(pair, result["counterfactual"]), *_ties(retrieval)]
    nothing_wrong = all(finding.severity == "info" or finding.code == "N_SMALL" for finding in findings)
    if nothing_wrong and retrieval is not None and "AUC" in retrieval["pairwise"]:
        findings.insert(0, _level(retrieval))
    if not findings:
        text = "the modalities do not share a space: they have different numbers of columns"
        findings.append(Finding("NO_SPACE", "info", (), ("inputs.dims",), text, "fit adapters with pmrl fit"))
    return sorted(findings, key=lambda finding: _SEVERITIES.index(finding.severity))


def _few(inputs: Mapping[str, Any]) -> list[Finding]:
    instances, groups = inputs["instances"], inputs["groups"]
    if instances >= FEW_INSTANCES and groups >= FEW_GROUPS:
        return []
    what = f"{instances} instance{'' if instances == 1 else 's'}"
    if inputs["group"] is not None:
        what += f" in {groups} group{'' if groups == 1 else 's'}"
    evidence = ("inputs.instances", "inputs.groups")
    advice = "collect 1,000 or more before ranking methods by these numbers"
    return [Finding("N_SMALL", "warn", (), evidence, f"only {what}: intervals are wide", advice)]


def _auc(pair: Mapping[str, Any], name: str) -> float | None:
    """Return the mean AUC over the directions that name a modality."""
    values = [
        direction["AUC"]["value"]
        for key, found in pair.items()
        if name in key.split("|")
        for direction in found["retrieval"].values()
        if "AUC" in direction
    ]
    return sum(values) / len(values) if values else None


def _points(pair: Mapping[str, Any], modality: Mapping[str, Any]) -> list[Finding]:
    findings = []
    for name, found in modality.items():
        cone, auc = found["meancos"]["value"], _auc(pair, name)
        if cone is None or auc is None or cone <= CONE:
            continue
        evidence = (f"modality.{name}.meancos",)
        if auc >= SEPARATED_AUC:
            text = f"{name}: instances share a direction (mean cosine {cone:.2f}) but are told apart"
            advice = "centre it if modalities are searched together; else leave it"
            findings.append(Finding("CONE", "info", (name,), evidence, text, advice))
        elif cone > COLLAPSED_CONE:
            text = f"{name}: all instances lie near one point (mean cosine {cone:.2f}, AUC {auc:.2f})"
            advice = "raise the weight of the instance term or lower its temperature, then fit again"
            findings.append(Finding("COLLAPSE", "fail", (name,), evidence, text, advice))
    return findings


def _dimensions(inputs: Mapping[str, Any], modality: Mapping[str, Any]) -> list[Finding]:
    findings = []
    for name, found in modality.items():
        value = found["pr_deb"]["value"]
        # A modality cannot use more dimensions than its files have columns.
        room = min(inputs["dims"][name], inputs["columns"][name])
        floor = min(max(LOW_DIMENSION, LOW_DIMENSION_SHARE * room), room / FEWEST_SHARE)
        if value is not None and value < floor:
            text = f"{name}: only {value:.1f} of {room} dimensions are in use"
            advice = "fit with a smaller --dim, or with more weight on the instance term"
            findings.append(Finding("DIM_COLLAPSE", "warn", (name,), (f"modality.{name}.pr_deb",), text, advice))
    return findings


def _pairing(pair: Mapping[str, Any]) -> list[Finding]:
    scores = {name: found["z"]["value"] for name, found in pair.items() if found["z"]["value"] is not None}
    # Dependence that a rotation hides is pairing too: then the coordinates differ, not the instances.
    both = {
        name: [found[key]["value"] for key in ("z", "cka_z") if key in found and found[key]["value"] is not None]
        for name, found in pair.items()
    }
    dependence = {name: max(map(abs, values)) for name, values in both.items() if values}
    unpaired = tuple(name for name, z in dependence.items() if z <= PAIRED_Z)
    findings = []
    if dependence and len(unpaired) == len(dependence):
        text = f"the pairs cannot be told from shuffled ones (|z| at most {max(dependence.values()):.1f})"
        evidence = tuple(f"pair.{name}.{key}" for name in unpaired for key in ("z", "cka_z") if key in pair[name])
        advice = "check ids and join with pmrl inspect first; then pmrl fit"
        findings.append(Finding("NO_PAIRING", "fail", (), evidence, text, advice))
    else:
        for name in unpaired:
            text = f"{name}: unpaired as far as can be told (z {dependence[name]:.1f})"
            advice = "verify that these files belong together, or leave one out"
            findings.append(Finding("UNRELATED_PAIR", "warn", (name,), (f"pair.{name}.z",), text, advice))
    for name, z in scores.items():
        adjusted = pair[name]["adj"]["value"]
        if z < -PAIRED_Z and adjusted is not None and adjusted < ANTI_ADJUSTED:
            text = f"{name}: partners point away from each other (adjusted cosine {adjusted:.2f})"
            advice = "flip the sign of one, or fit with a sign-aware objective (pmrl)"
            evidence = (f"pair.{name}.z", f"pair.{name}.adj", "alignment.signed")
            findings.append(Finding("ANTI_ALIGNED", "fail", (name,), evidence, text, advice))
    return findings


def _odd_one_out(inputs: Mapping[str, Any], pair: Mapping[str, Any]) -> list[Finding]:
    adjusted = {name: found["adj"]["value"] for name, found in pair.items() if found["adj"]["value"] is not None}
    findings = []
    for name in inputs["modalities"]:
        own = [value for key, value in adjusted.items() if name in key.split("|")]
        rest = [value for key, value in adjusted.items() if name not in key.split("|")]
        if not own or not rest:
            continue
        mine, others = sum(own) / len(own), sum(rest) / len(rest)
        if others > ODD_FLOOR and mine < ODD_SHARE * others:
            text = f"{name} deviates: adjusted cosine {mine:.2f} with the others, {others:.2f} among them"
            evidence = tuple(f"pair.{key}.adj" for key in adjusted)
            advice = f"check {name}'s files and encoder; see what alignment is without it"
            findings.append(Finding("ODD_ONE_OUT", "warn", (name,), evidence, text, advice))
    return findings


def _ties(retrieval: Mapping[str, Any]) -> list[Finding]:
    spread = retrieval["tie_spread"]
    if spread <= TIE_SPREAD:
        return []
    text = f"ties leave R@1 open by up to {spread:.3f}; its expectation is reported"
    advice = "look for duplicate vectors; name their groups with --group"
    return [Finding("TIES", "info", (), ("retrieval.tie_spread",), text, advice)]


def _gap(pair: Mapping[str, Any], counterfactual: Sequence[Mapping[str, Any]]) -> list[Finding]:
    shares = {name: found["gap"]["gap_share"]["value"] for name, found in pair.items()}
    wide = tuple(name for name, share in shares.items() if share is not None and share > GAP_SHARE)
    centring = next((one for one in counterfactual if one["action"] == "centre"), None)
    if not wide or centring is None:
        return []
    gain = centring["delta"]
    if gain["value"] <= CENTRING_GAIN or gain["ci"] is None or gain["ci"][0] <= 0:
        return []
    largest = max(shares[name] for name in wide)
    text = f"modality gap: a constant offset is up to {largest:.0%} of the distance between partners"
    before, after = centring["before"]["value"], centring["after"]["value"]
    advice = f"centre each modality: R@1 {before:.2f} -> {after:.2f} on held-out halves (pmrl fit does)"
    evidence = tuple(f"pair.{name}.gap.gap_share" for name in wide)
    return [Finding("MODALITY_GAP", "warn", wide, evidence, text, advice)]


def _level(retrieval: Mapping[str, Any]) -> Finding:
    """Return what to say when nothing is wrong: the level, not praise."""
    auc = retrieval["pairwise"]["AUC"]
    metric = "R@1_standard" if retrieval["standard_gallery"] else "R@1"
    found = retrieval["pairwise"][metric]
    evidence = ("retrieval.pairwise.AUC", f"retrieval.pairwise.{metric}")
    where = f"partners beat {auc['value']:.1%} of candidates; R@1 {found['value']:.2f}, chance {found['chance']:.3f}"
    if auc["ci"] is not None and auc["ci"][0] >= SEPARATED_AUC:
        return Finding("HEALTHY", "info", (), evidence, f"aligned: {where}", "next: a larger gallery or a new domain")
    return Finding("WEAK", "warn", (), evidence, f"paired, but weakly: {where}", "fit adapters with pmrl fit")
