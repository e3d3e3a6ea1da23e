"""Rules about the data and their pairing: too few, unpaired, unrelated, shifted, opposed, mispaired."""

from __future__ import annotations

from collections.abc import Iterator

from pmrl_cli.diagnosis.rules.rule import Finding, ResultView, Rule
from pmrl_cli.diagnosis.statistics.dependence import PAIRED_Z

__all__ = ["RULES"]

FEW_INSTANCES = 200
FEW_GROUPS = 50
ANTI_ADJUSTED = -0.2
MISPAIR_FLOOR = 0.005
TELLING_AUC = 0.9
TIE_SPREAD = 0.005


def _few(look: ResultView) -> Iterator[Finding]:
    instances, groups = look.number("inputs", "instances"), look.number("inputs", "groups")
    if instances is None or groups is None or (instances >= FEW_INSTANCES and groups >= FEW_GROUPS):
        return
    what = f"{instances:.0f} instance{'' if instances == 1 else 's'}"
    if look.node("inputs", "group") is not None:
        what += f" in {groups:.0f} group{'' if groups == 1 else 's'}"
    advice = "collect 1,000 or more before ranking methods by these numbers"
    yield Finding("N_SMALL", "warn", (), tuple(look.seen), f"only {what}: intervals are wide", advice)


def _strengths(look: ResultView) -> dict[str, float]:
    return {pair: z for pair in look.pairs if (z := look.value("pair", pair, "strength")) is not None}


def _no_pairing(look: ResultView) -> Iterator[Finding]:
    strengths = _strengths(look)
    if not strengths or max(strengths.values()) > PAIRED_Z:
        return
    text = f"the pairs cannot be told from shuffled ones ({max(strengths.values()):.1f} deviations at most)"
    advice = "check ids and join with pmrl inspect first; then the encoders"
    yield Finding("NO_PAIRING", "fail", (), tuple(look.seen), text, advice)


def _unrelated(look: ResultView) -> Iterator[Finding]:
    strengths = _strengths(look)
    if not strengths or max(strengths.values()) <= PAIRED_Z:
        return  # none is related: NO_PAIRING
    for pair, strength in strengths.items():
        if strength <= PAIRED_Z:
            evidence = tuple(path for path in look.seen if path.startswith(f"pair.{pair}."))
            text = f"{pair}: unpaired as far as can be told ({strength:.1f} deviations from shuffled)"
            advice = "verify that these files belong together; try a nonlinear adapter, or leave one out"
            yield Finding("UNRELATED_PAIR", "warn", (pair,), evidence, text, advice)


def _shifted(look: ResultView) -> Iterator[Finding]:
    for pair in look.pairs:
        order, score = look.node("pair", pair, "order"), look.value("pair", pair, "order", "z")
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
            "SHIFTED_JOIN", "fail", (pair,), evidence, text, "join by id again, or mend the order of the rows"
        )


def _opposed(look: ResultView) -> Iterator[Finding]:
    for pair in look.pairs:
        z, adjusted = look.value("pair", pair, "z"), look.value("pair", pair, "cosine_adjusted")
        look.value("alignment", "signed")
        if z is None or adjusted is None or z >= -PAIRED_Z or adjusted >= ANTI_ADJUSTED:
            continue
        text = f"{pair}: partners point away from each other (adjusted cosine {adjusted:.2f})"
        advice = "flip the sign of one, or fit with a sign-aware objective (pmrl)"
        evidence = (f"pair.{pair}.z", f"pair.{pair}.cosine_adjusted", "alignment.signed")
        yield Finding("ANTI_ALIGNED", "fail", (pair,), evidence, text, advice)


def _mispairs(look: ResultView) -> Iterator[Finding]:
    names = look.names
    for name in names:
        rate, auc = look.statistic("modality", name, "mispair_rate"), look.value("modality", name, "consensus_auc")
        if rate is None or auc is None or rate["status"] != "ok" or rate["ci"] is None:
            continue
        if rate["ci"][0] <= MISPAIR_FLOOR or auc < TELLING_AUC or rate["value"] >= 0.5:
            continue
        # With two modalities both have the rate of the pair: it is said once.
        subject = "|".join(names) if len(names) == 2 else name
        low, high = rate["ci"]
        text = f"{subject}: {rate['value']:.1%} [{low:.1%}, {high:.1%}] of instances look mispaired"
        advice = "look at the suspects (--suspects), then fit with --exclude"
        evidence = (f"modality.{name}.mispair_rate", f"modality.{name}.consensus_auc")
        yield Finding("MISPAIRS", "warn", (subject,), evidence, text, advice)
        if len(names) == 2:
            return


def _ties(look: ResultView) -> Iterator[Finding]:
    spread = look.number("retrieval", "tie_spread")
    if spread is not None and spread > TIE_SPREAD:
        text = f"ties leave R@1 open by up to {spread:.3f}; its expectation is reported"
        advice = "look for duplicate vectors; name their groups with --group"
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
        f"lower end of a mispair rate above {MISPAIR_FLOOR:g}, consensus AUC {TELLING_AUC:g} or more",
        _mispairs,
    ),
    Rule("TIES", f"ties leave R@1 open by more than {TIE_SPREAD:g}", _ties),
)
