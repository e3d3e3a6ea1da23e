"""The verdict: which rules fired and which did not, each with what it read.

The statistical part of a rule (z, interval, chance) is not a matter of taste; its cut-offs are conventions, and they
stand at the head of the modules in ``rules``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from pmrl_cli.diagnosis.rules import RULES, Finding, ResultView
from pmrl_cli.diagnosis.rules.advice import command_for

__all__ = ["SEVERITIES", "Verdict", "verdict_of"]

SEVERITIES = ("fail", "warn", "info")

ALIGNED_AUC = 0.9
"""Partners that beat less than this share of the other candidates are not called aligned."""

_MISPAIRED = {"NO_PAIRING", "SHIFTED_JOIN", "UNRELATED_PAIR", "MISPAIRED_ROWS", "MISPAIRS"}
"""What brings vectors to instances that they do not belong to."""

_LEAKS_TO_RATE = 2
"""A leak is put down to mispaired vectors if it is of at most so many times their rate, which may be too low."""


@dataclass(frozen=True)
class Verdict:
    """What the rules say.

    Args:
        findings: of the rules that fired, gravest first; never empty.
        silent: (code, evidence, condition) of the rules that were asked and did not fire.
    """

    findings: tuple[Finding, ...]
    silent: tuple[tuple[str, tuple[str, ...], str], ...]

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values: the gravest finding's code and severity, all findings, and what did not fire."""
        first = self.findings[0]
        return {
            "code": first.code,
            "severity": first.severity,
            "text": first.text,
            "findings": [asdict(finding) for finding in self.findings],
            "not_fired": [
                {"code": code, "evidence": list(evidence), "text": f"not so: {condition}"}
                for code, evidence, condition in self.silent
            ],
        }


def verdict_of(result: Mapping[str, Any]) -> Verdict:
    """Ask every rule.

    A rule whose numbers are not there (no model, one modality too few) is not asked.

    Args:
        result: the JSON values of the diagnosis (``docs/diagnose.schema.json``), less its verdict.
    """
    findings: list[Finding] = []
    silent = []
    for rule in RULES:
        view = ResultView(result)
        fired = list(rule.ask(view))
        findings += fired
        if not fired and view.seen:
            silent.append((rule.code, tuple(view.seen), rule.condition))
    nothing_wrong = all(finding.severity == "info" or finding.code == "N_SMALL" for finding in findings)
    if nothing_wrong:
        findings = [*_level(ResultView(result)), *findings]
    if not findings:
        text = "the modalities do not share a space: they have different numbers of columns"
        findings = [Finding("NO_SPACE", "info", (), ("inputs.dims",), text, "fit adapters")]
    findings = [replace(finding, command=command_for(finding.code, result)) for finding in findings]
    findings = _by_cause(findings, ResultView(result).names)
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return Verdict(tuple(findings), tuple(silent))


def _by_cause(findings: list[Finding], names: Sequence[str]) -> list[Finding]:
    """Put a leak behind the mispaired vectors that explain it.

    A vector that has come to another instance may have trained under its own. Copies of instances share the vectors
    of all modalities; a leak of no other modalities than those that are mispaired is what mispairing makes.
    """
    causes = [one for one in findings if one.code in _MISPAIRED]
    mispaired = {name for one in causes for of in one.subject or names for name in (of, *of.split("|"))}
    most = min(1.0, _LEAKS_TO_RATE * sum(1.0 if one.rate is None else one.rate for one in causes))
    behind = [
        replace(
            leak,
            severity="warn",
            text=f"{leak.text}. Mispaired vectors explain it: they trained under the ids they belong to",
            advice=f"correct {causes[0].code} first, then look again",
            command=causes[0].command,
        )
        for leak in findings
        if leak.code == "LEAK" and set(leak.subject) <= mispaired and (leak.rate or 0.0) <= most
    ]
    return findings if not behind else [*(one for one in findings if one.code != "LEAK"), *behind]


def _level(view: ResultView) -> list[Finding]:
    """Return what to say when nothing is wrong: the level, not praise."""
    auc = view.statistic("retrieval", "pairwise", "AUC")
    metric = "R@1_standard" if view.node("retrieval", "standard_gallery") else "R@1"
    found = view.statistic("retrieval", "pairwise", metric)
    if auc is None or found is None:
        return []
    where = f"partners beat {auc['value']:.1%} of candidates; R@1 {found['value']:.3f}, chance {found['chance']:.3f}"
    evidence = tuple(view.seen)
    if auc["ci"] is not None and auc["ci"][0] >= ALIGNED_AUC:
        advice = "measure it in a larger gallery, or in a new domain"
        return [Finding("HEALTHY", "info", (), evidence, f"aligned: {where}", advice)]
    advice = "fit adapters"
    if view.node("inputs", "model") is not None:
        advice = "see whether training still gained; if not, the modalities share no more than this"
    return [Finding("WEAK", "warn", (), evidence, f"paired, but weakly: {where}", advice)]
