"""Rules about training, asked where a model is given."""

from __future__ import annotations

from collections.abc import Iterator

from pmrl_cli.diagnosis.rules.rule import Finding, ResultView, Rule

__all__ = ["RULES"]

SATURATED = 0.01
UNALIGNED = 0.8
STARVED_SHARE = 0.5
FEW_NEGATIVES = 5.0
LOW_POSITIVE = 0.05
FOUND = 0.2


def _saturated(view: ResultView) -> Iterator[Finding]:
    left, aligned = view.value("training", "saturation"), view.value("alignment", "A")
    if left is None or aligned is None or left >= SATURATED or aligned >= UNALIGNED:
        return
    text = f"the spectrum loss is solved in numbers ({left:.1e} left), not in space (A {aligned:.3f})"
    suggested = view.node("training", "temperature_suggested")
    advice = "raise the spectrum temperature"
    if suggested is not None:
        advice += f" from {view.node('training', 'temperature'):g} to {suggested:.2g}"
    yield Finding("SATURATED", "warn", (), tuple(view.seen), text, advice)


def _starved(view: ResultView) -> Iterator[Finding]:
    names = view.names
    shares = {name: share for name in names if (share := view.value("modality", name, "gradient_share")) is not None}
    aucs = {name: auc for name in shares if (auc := view.value("modality", name, "consensus_auc")) is not None}
    for name, share in shares.items():
        if share < STARVED_SHARE / len(names) and name in aucs and aucs[name] == min(aucs.values()):
            text = f"{name}: {share:.0%} of the alignment gradient reaches it, and it agrees least with the others"
            advice = "give its adapter a higher learning rate, or train more by pairs (--set pairwise_weight)"
            evidence = (f"modality.{name}.gradient_share", f"modality.{name}.consensus_auc")
            yield Finding("STARVED", "warn", (name,), evidence, text, advice)


def _temperature(view: ResultView) -> Iterator[Finding]:
    effective, positive = (
        view.value("training", "negatives_effective"),
        view.value("training", "positive_probability"),
    )
    hits = view.value("retrieval", "pairwise", "R@1")
    if effective is not None and effective < FEW_NEGATIVES:
        text = f"the contrast sees {effective:.1f} negatives: its temperature is too low"
        advice = "raise the temperature of the instance term"
        yield Finding("NEG_TEMPERATURE", "warn", (), ("training.negatives_effective",), text, advice)
    elif positive is not None and hits is not None and positive < LOW_POSITIVE and hits > FOUND:
        text = f"partners get {positive:.3f} of the contrast though R@1 is {hits:.3f}: its temperature is too high"
        advice = "lower the temperature of the instance term"
        evidence = ("training.positive_probability", "retrieval.pairwise.R@1")
        yield Finding("NEG_TEMPERATURE", "warn", (), evidence, text, advice)


RULES = (
    Rule(
        "SATURATED",
        f"less than {SATURATED:g} of the spectrum softmax left while A is below {UNALIGNED:g}",
        _saturated,
    ),
    Rule("STARVED", "half an even share of the gradient or less, and the least agreement", _starved),
    Rule(
        "NEG_TEMPERATURE",
        f"fewer than {FEW_NEGATIVES:g} negatives count, or partners get {LOW_POSITIVE:g} at R@1 above {FOUND:g}",
        _temperature,
    ),
)
