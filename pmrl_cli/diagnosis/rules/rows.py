"""Rules about rows of the files: runs that do not belong to their ids, and vectors that many rows hold."""

from __future__ import annotations

from collections.abc import Iterator

from pmrl_cli.diagnosis.rules.rule import Finding, ResultView, Rule

__all__ = ["RULES"]

TEMPLATE_FRACTION = 0.01
LEAK_FRACTION = 0.01


def _runs(view: ResultView) -> Iterator[Finding]:
    for name in view.names:
        view.value("modality", name, "row_order")
        for run in view.node("modality", name, "runs") or ():
            first, last = run["rows"]
            # With two modalities it is not known which of them is shifted.
            subject = "|".join(view.names) if len(view.names) == 2 else name
            place = f"rows {first + 1:,} to {last:,}"
            text = (
                f"{subject}: {place} ({run['ids'][0]} to {run['ids'][1]}) do not belong to their ids "
                f"(agreement {run['agreement']:.3f}, mispaired 0.500)"
            )
            advice = f"look at {place} of {name} beside their ids, then fit with --exclude suspects.csv"
            if run["shift"]:
                count, way = abs(run["shift"]), "late" if run["shift"] > 0 else "early"
                late = f"{count} row{'s' * (count > 1)} {way}"
                text += f"; they are {late}"
                advice = f"join {name} by id again: from row {first + 1:,} on it is {late}"
            evidence = (f"modality.{name}.row_order",)
            yield Finding(
                "MISPAIRED_ROWS", "fail", (subject,), evidence, text, advice, rate=run["fraction"], rows=(first, last)
            )
            if len(view.names) == 2:
                return


def _templates(view: ResultView) -> Iterator[Finding]:
    for name in view.names:
        found = [
            one for one in view.node("modality", name, "templates") or () if one["fraction"] >= TEMPLATE_FRACTION
        ]
        if found:
            rows, fraction = sum(one["rows"] for one in found), sum(one["fraction"] for one in found)
            what = "one vector is" if len(found) == 1 else f"{len(found)} vectors are"
            text = f"{name}: {what} in {rows:,} of the rows read ({fraction:.1%}), {found[0]['id']} among them"
            advice = (
                f"leave those rows of {name} out (a placeholder holds no information), or make their vectors again"
            )
            evidence = (f"modality.{name}.templates",)
            yield Finding("TEMPLATES", "warn", (name,), evidence, text, advice, rate=fraction)


def _leak(view: ResultView) -> Iterator[Finding]:
    judged, sharing = view.number("inputs", "leaks", "judged"), view.number("inputs", "leaks", "sharing")
    if not judged or not sharing:
        return
    of = {name: count for name, count in view.node("inputs", "leaks", "modalities").items() if count}
    each = ", ".join(f"{name} {count:,}" for name, count in of.items())
    text = (
        f"{sharing:,.0f} of {judged:,.0f} evaluated instances hold vectors that trained the model ({each}): its "
        "numbers are optimistic"
    )
    advice = "fit again: copies then stay on one side of the split"
    severity = "fail" if sharing / judged >= LEAK_FRACTION else "warn"
    evidence = ("inputs.leaks.judged", "inputs.leaks.sharing")
    yield Finding("LEAK", severity, tuple(of), evidence, text, advice, rate=sharing / judged)


RULES = (
    Rule(
        "LEAK",
        f"evaluated instances hold vectors that trained the model; fails from {LEAK_FRACTION:.0%} of them",
        _leak,
    ),
    Rule(
        "MISPAIRED_ROWS",
        "a run of rows that stands out at p .01 and agrees as mispaired ones do (below 0.7, the others above 0.8)",
        _runs,
    ),
    Rule(
        "TEMPLATES", f"vectors that {TEMPLATE_FRACTION:.0%} of the rows hold, ten times the usual number", _templates
    ),
)
