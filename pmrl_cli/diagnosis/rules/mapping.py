"""Rules about how the modalities are mapped: alignable but not aligned, one that deviates, one way better."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pmrl_cli.diagnosis.rules.rule import Finding, ResultView, Rule, gain_text, helps
from pmrl_cli.stats.statistic import NORMAL_95

__all__ = ["RULES"]

ADAPTER_GAIN = 0.1
ROTATION_GAIN = 0.05
ODD_SHARE = 0.6
ODD_FLOOR = 0.1
ONE_WAY = 0.05


def _alignable(view: ResultView) -> Iterator[Finding]:
    if view.node("inputs", "stage") == "post":
        adapter, centring = view.remedy("linear"), view.remedy("centre")
        # What centring fixes is a gap.
        centring_gain = 0.0 if centring is None else max(0.0, centring["delta"]["value"] or 0.0)
        # An adapter also gains by weighing directions that are where they should be.
        elsewhere = helps(view.remedy("rotate"), ROTATION_GAIN)
        if elsewhere and adapter is not None and helps(adapter, ADAPTER_GAIN + centring_gain):
            text = (
                f"what the modalities share is there, in other coordinates: {gain_text(adapter)} by a linear adapter"
            )
            evidence = tuple(view.seen)
            advice = "fit adapters"
            yield Finding("NOT_ALIGNED_BUT_ALIGNABLE", "warn", (), evidence, text, advice)
        return
    reached = {}
    for pair in view.pairs:
        found = view.statistic("pair", pair, "probe", "R@1")
        if found is not None and found["ci"] is not None and found["ci"][0] > found["chance"]:
            reached[pair] = found["value"]
    if not reached:
        return
    best = max(reached, key=lambda pair: reached[pair])
    gallery = view.node("pair", best, "probe", "gallery")
    text = (
        f"not in one space, but alignable: a linear adapter reaches R@1 {reached[best]:.3f} of {gallery} for {best}"
    )
    if len(view.pairs) > 1:
        text += f" and is above chance for {len(reached)} of {len(view.pairs)} pairs"
    evidence = tuple(f"pair.{pair}.probe.R@1" for pair in reached)
    yield Finding("NOT_ALIGNED_BUT_ALIGNABLE", "warn", tuple(reached), evidence, text, "fit adapters")


def _odd_one_out(view: ResultView) -> Iterator[Finding]:
    names = view.names
    adjusted = {
        pair: value for pair in view.pairs if (value := view.value("pair", pair, "cosine_adjusted")) is not None
    }
    for name in names:
        own = [value for pair, value in adjusted.items() if name in pair.split("|")]
        rest = [value for pair, value in adjusted.items() if name not in pair.split("|")]
        dropped = view.remedy("drop_modality", [name], "fused ")
        if not own or not rest:
            continue
        mine, others = sum(own) / len(own), sum(rest) / len(rest)
        if others <= ODD_FLOOR or mine >= ODD_SHARE * others:
            continue
        text = f"{name} deviates: adjusted cosine {mine:.3f} with the others, {others:.3f} among them"
        advice = f"check {name}'s files and encoder"
        if dropped is not None and helps(dropped):
            advice += f"; without it in the query {gain_text(dropped)}"
        evidence = tuple(f"pair.{pair}.cosine_adjusted" for pair in adjusted)
        yield Finding("ODD_ONE_OUT", "warn", (name,), evidence, text, advice)


def _one_way(view: ResultView) -> Iterator[Finding]:
    for pair in view.pairs:
        ways = list(view.node("pair", pair, "retrieval") or ())
        found = [view.statistic("pair", pair, "retrieval", way, "R@1") for way in ways]
        if len(found) != 2 or found[0] is None or found[1] is None or not found[0]["se"] or not found[1]["se"]:
            continue
        apart = found[0]["value"] - found[1]["value"]
        # The two directions share their instances: as if independent, the interval is too wide rather than narrow.
        error = math.hypot(found[0]["se"], found[1]["se"])
        if abs(apart) - NORMAL_95 * error > ONE_WAY:
            better, worse = ways if apart > 0 else ways[::-1]
            text = f"{better} finds partners more often than {worse} (R@1 {abs(apart):+.3f})"
            advice = "look for hubs or near copies among the candidates of the weaker way"
            evidence = tuple(f"pair.{pair}.retrieval.{way}.R@1" for way in ways)
            yield Finding("ONE_WAY", "info", (pair,), evidence, text, advice)


RULES = (
    Rule(
        "NOT_ALIGNED_BUT_ALIGNABLE",
        f"a linear adapter gains {ADAPTER_GAIN:g} R@1 more than centring and a rotation {ROTATION_GAIN:g}, or one is "
        "above chance without a shared space",
        _alignable,
    ),
    Rule("ODD_ONE_OUT", f"adjusted cosines below {ODD_SHARE:g} of those among the others", _odd_one_out),
    Rule("ONE_WAY", f"R@1 of the two directions of a pair more than {ONE_WAY:g} apart", _one_way),
)
