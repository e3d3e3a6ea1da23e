"""Rules about the data and their pairing: too few, unpaired, unrelated, shifted, opposed, mispaired."""

from __future__ import annotations

from collections.abc import Iterator

from pmrl_cli.diagnosis.mispair_rates import NEAR_FLOOR
from pmrl_cli.diagnosis.rules.rule import Finding, ResultView, Rule
from pmrl_cli.diagnosis.statistics.dependence import PAIRED_Z

__all__ = ["RULES"]

FEW_INSTANCES = 200
FEW_GROUPS = 50
TESTABLE_GROUPS = 10
"""Fewer independent units reach PAIRED_Z deviations hardly or not at all: perfectly paired vectors along one
direction lie 2.1 deviations from shuffled ones with four units, 4.3 with seven and 6.5 with ten (medians of 200
Gaussian draws, 600 permutations each)."""

ANTI_ADJUSTED = -0.2
MISPAIR_FLOOR = 0.005
FEWEST_DIMENSIONS = 3.0
MOST_MISPAIRED = 0.5
TIE_SPREAD = 0.005
REPEATED_SHARE = 0.005


def _few(view: ResultView) -> Iterator[Finding]:
    instances, groups = view.number("inputs", "instances"), view.number("inputs", "groups")
    if instances is None or groups is None or (instances >= FEW_INSTANCES and groups >= FEW_GROUPS):
        return
    what = f"{instances:.0f} instance{'' if instances == 1 else 's'}"
    if view.node("inputs", "group") is not None or view.node("inputs", "match") is not None:
        what += f" in {groups:.0f} group{'' if groups == 1 else 's'}"
    wanted = "1,000 or more" if instances < FEW_INSTANCES else f"{FEW_GROUPS} groups or more"
    advice = f"collect {wanted} before ranking methods by these numbers"
    so = "intervals are wide" if groups >= TESTABLE_GROUPS else "pairing cannot be told from chance"
    yield Finding("N_SMALL", "warn", (), tuple(view.seen), f"only {what}: {so}", advice)


def _strengths(view: ResultView) -> dict[str, float]:
    if (view.number("inputs", "groups") or 0) < TESTABLE_GROUPS:
        return {}
    return {pair: z for pair in view.pairs if (z := view.value("pair", pair, "strength")) is not None}


def _no_pairing(view: ResultView) -> Iterator[Finding]:
    strengths = _strengths(view)
    if not strengths or max(strengths.values()) > PAIRED_Z:
        return
    text = f"the pairs do not differ from shuffled ones ({max(strengths.values()):.1f} deviations at most)"
    advice = "compare how the files name their instances; then look at the encoders"
    if view.node("inputs", "model") is not None:
        advice = "diagnose the features without the model; if they are paired, fit again"
    yield Finding("NO_PAIRING", "fail", (), tuple(view.seen), text, advice)


def _unrelated(view: ResultView) -> Iterator[Finding]:
    strengths = _strengths(view)
    if not strengths or max(strengths.values()) <= PAIRED_Z:
        return  # none is related: NO_PAIRING
    for pair, strength in strengths.items():
        if strength <= PAIRED_Z:
            evidence = tuple(path for path in view.seen if path.startswith(f"pair.{pair}."))
            text = f"{pair}: no pairing is found ({strength:.1f} deviations from shuffled)"
            advice = "verify that these files belong together; try a nonlinear adapter, or leave one out"
            yield Finding("UNRELATED_PAIR", "warn", (pair,), evidence, text, advice)


def _shifted(view: ResultView) -> Iterator[Finding]:
    for pair in view.pairs:
        order, score = view.node("pair", pair, "order"), view.value("pair", pair, "order", "z")
        if order is None or score is None or score <= PAIRED_Z:
            continue
        a, b = pair.split("|", 1)
        if order["reversed"]:
            how = f"the rows of {b} are in reverse order"
        else:
            how = f"row i of {a} matches row i{order['shift']:+d} of {b}"
        text = f"{pair}: {how} ({score:.0f} deviations from shuffled)"
        evidence = (f"pair.{pair}.order.z",)
        yield Finding(
            "SHIFTED_JOIN", "fail", (pair,), evidence, text, "join by id again, or fix the order of the rows"
        )


def _opposed(view: ResultView) -> Iterator[Finding]:
    for pair in view.pairs:
        z, adjusted = view.value("pair", pair, "z"), view.value("pair", pair, "cosine_adjusted")
        view.value("alignment", "signed")
        if z is None or adjusted is None or z >= -PAIRED_Z or adjusted >= ANTI_ADJUSTED:
            continue
        text = f"{pair}: partners point away from each other (adjusted cosine {adjusted:.3f})"
        advice = "flip the sign of one, or fit with a sign-aware objective (pmrl)"
        evidence = (f"pair.{pair}.z", f"pair.{pair}.cosine_adjusted", "alignment.signed")
        yield Finding("ANTI_ALIGNED", "fail", (pair,), evidence, text, advice)


def _mispairs(view: ResultView) -> Iterator[Finding]:
    names = view.names
    for name in names:
        rate, near = (
            view.statistic("modality", name, "mispair_rate"),
            view.node("modality", name, "near_mispair_rate"),
        )
        if rate is None or rate["status"] != "ok" or rate["ci"] is None:
            continue
        view.value("modality", name, "near_mispair_rate")
        fillers = [
            sum(one["fraction"] for one in view.node("modality", other, "templates") or ())
            for other in (names if len(names) == 2 else [name])
        ]
        if rate["ci"][0] <= sum(fillers):
            continue  # TEMPLATES says it: a filler belongs to none of its rows
        alike = near is not None and near["value"] is not None and near["value"] > rate["value"] / 2
        dimensions = view.value("modality", name, "participation_ratio")
        # In few dimensions a neighbour is as near as a partner. Half of all at random: two spaces, no swaps.
        few = dimensions is None or dimensions < FEWEST_DIMENSIONS
        if rate["ci"][0] <= (NEAR_FLOOR if alike else MISPAIR_FLOOR):
            continue
        if few if alike and near["status"] == "ok" else rate["value"] >= MOST_MISPAIRED:
            continue
        # With two modalities both have the rate of the pair: one finding is enough.
        subject = "|".join(names) if len(names) == 2 else name
        low, high = rate["ci"]
        text = f"{subject}: {rate['value']:.1%} [{low:.1%}, {high:.1%}] of instances look mispaired"
        if near is not None and near["status"] == "ok" and near["ci"] is not None:
            text += f", {near['value']:.1%} with instances like them"
        if len(names) == 2:
            text += "; which of the two is wrong cannot be known from two modalities"
        if _trained_on(view):
            text += "; it may be more, for the model was trained on some of them and learned their pairs"
        advice = "list the suspects, look at them, then fit with --exclude suspects.csv"
        evidence = tuple(f"modality.{name}.{key}" for key in ("mispair_rate", "near_mispair_rate"))
        yield Finding("MISPAIRS", "warn", (subject,), evidence, text, advice, rate=min(1.0, rate["value"]))
        if len(names) == 2:
            return


def _trained_on(view: ResultView) -> bool:
    """Whether the model was trained on some of the instances."""
    judged, instances = view.node("inputs", "leaks", "judged"), view.node("inputs", "instances")
    return judged is not None and instances is not None and judged < instances


def _ties(view: ResultView) -> Iterator[Finding]:
    found = {name: view.number("modality", name, "repeated") or 0.0 for name in view.names}
    repeated = {name: share for name, share in found.items() if share > REPEATED_SHARE}
    if repeated:
        which = ", ".join(f"{share:.1%} of the rows of {name}" for name, share in repeated.items())
        text = f"{which} hold a vector that another row holds too; retrieval counts equal vectors once"
        advice = "leave the copies out, unless rows share a vector by design (captions of one image)"
        yield Finding(
            "TIES", "info", tuple(repeated), tuple(f"modality.{m}.repeated" for m in repeated), text, advice
        )
    spread = view.number("retrieval", "tie_spread")
    if spread is not None and spread > TIE_SPREAD:
        text = f"ties leave R@1 open by up to {spread:.3f}; its expectation is reported"
        advice = "see how many different vectors each file holds"
        if view.node("inputs", "group") is None:
            advice += "; name instances that belong together with --group"
        yield Finding("TIES", "info", (), ("retrieval.tie_spread",), text, advice)


RULES = (
    Rule("N_SMALL", f"fewer than {FEW_INSTANCES} instances or {FEW_GROUPS} groups", _few),
    Rule("NO_PAIRING", f"no sign of dependence beyond {PAIRED_Z:g} deviations in any pair", _no_pairing),
    Rule("SHIFTED_JOIN", "an unpaired pair that is paired when rows are shifted by up to 5 or reversed", _shifted),
    Rule(
        "UNRELATED_PAIR", f"no sign of dependence beyond {PAIRED_Z:g} deviations in one pair of several", _unrelated
    ),
    Rule("ANTI_ALIGNED", f"z below -{PAIRED_Z:g} and adjusted cosine below {ANTI_ADJUSTED:g}", _opposed),
    Rule(
        "MISPAIRS",
        f"lower end of a mispair rate above {MISPAIR_FLOOR:g}, above {NEAR_FLOOR:g} where most are of like instances",
        _mispairs,
    ),
    Rule(
        "TIES",
        f"over {REPEATED_SHARE:g} of a modality's rows hold another row's vector, "
        f"or ties leave R@1 open by more than {TIE_SPREAD:g}",
        _ties,
    ),
)
