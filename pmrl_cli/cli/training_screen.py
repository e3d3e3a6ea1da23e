"""``pmrl diagnose MODEL``: how the fit went, as curves small enough for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from pmrl_cli.cli import reports, space
from pmrl_cli.cli.table import Column, screen_width, table, unicode_screen
from pmrl_cli.errors import Place, UsageError
from pmrl_cli.report.shape import kept_run
from pmrl_cli.report.wording import number_text

__all__ = ["lines", "run", "sparkline"]

_ROWS = (
    ("mrr", "held-out MRR"),
    ("r1", "held-out R@1"),
    ("A", "agreement above chance (A)"),
    ("signed", "signed alignment"),
    ("share", "sigma_1^2 / k (rho)"),
    ("saturation", "saturation 1 - p1"),
    ("loss", "training loss"),
)
_EACH = (("loading", "loading"), ("gradient_share", "gradient share"), ("participation_ratio", "dims used"))
_LEVELS = "▁▂▃▄▅▆▇█"
_PLAIN_LEVELS = "_.-=+*#%"
_CURVE = 24


def run(model: Path, drawn: reports.Drawn, of_instances: Mapping[str, object], *, as_json: bool, force: bool) -> None:
    """Show how a fit went.

    Args:
        model: its folder.
        drawn: page and figures to write.
        of_instances: options that need instances, by name.
        as_json: print JSON instead of the screen.
        force: replace any file.

    Raises: UsageError if one of ``of_instances`` is given.
    """
    given = [name for name, value in of_instances.items() if value]
    if given:
        raise UsageError(
            what="no instances to diagnose",
            at=Place(str(model)),
            found=f"a model alone with {', '.join(given)}",
            expected="feature files",
            next_step=f"Type: pmrl diagnose FILES --model {model}.",
        )
    from pmrl_cli.train.history import read_training

    reports.check(drawn, None, force=force)
    training = read_training(model)
    reports.write(training, drawn, force=force)
    if as_json:
        space.print_json(training)
        return
    console = space.screen()
    for number, line in enumerate(lines(training, str(model), screen_width(), unicode=unicode_screen())):
        console.print(line, style="bold" if number == 0 else None, soft_wrap=True)


def lines(training: Mapping[str, Any], model: str, width: int, *, unicode: bool) -> list[str]:
    """Return the screen.

    Args:
        training: from ``pmrl_cli.train.history``.
        model: name of the model.
        width: characters of a line.
        unicode: whether block characters can be written.
    """
    history, kept = training["history"], training["kept"]
    shown = kept_run(training)
    assert shown is not None  # a model has members
    run = [line for line in history if line["stage"] == shown["stage"]]
    members = ", ".join(f"{one['stage']} at step {one['step']}" for one in kept)
    others = [
        f"{stage} (MRR {best:.3f})"
        for stage, best in _best(history).items()
        if stage not in {one["stage"] for one in kept}
    ]
    top = [
        f"pmrl diagnose  {model}",
        f"{len(training['modalities'])} modalities in {training['dim']} dims, objective "
        f"{', '.join(training['objectives'])}",
        f"kept: {members}" + ("; then repeated with the validation instances" if training["refitted"] else ""),
        *([f"also tried: {', '.join(others)}"] if others else []),
        f"below: {shown['stage']}, {space.count_text(len(run), 'evaluation')}",
    ]
    rows = [(title, _curve(run, name)) for name, title in _ROWS]
    for key, title in _EACH:
        rows += [(f"{title}, {name}", _curve(run, f"{key}.{name}")) for name in training["modalities"]]
    rows = [(title, curve) for title, curve in rows if curve]
    at_kept = [dict(curve).get(shown["step"]) for _, curve in rows]
    columns = [
        Column("validation instances", [title for title, _ in rows]),
        Column("start", [number_text(curve[0][1]) for _, curve in rows]),
        Column("kept", [number_text(value) for value in at_kept]),
        Column("last", [number_text(curve[-1][1]) for _, curve in rows], 2),
        Column("curve", [sparkline([y for _, y in curve], _CURVE, unicode=unicode) for _, curve in rows], 1),
    ]
    wrapped = [part for line in top for part in textwrap.wrap(line, width, break_on_hyphens=False)]
    return [*wrapped, "", *table(columns, width=width, first=20)]


def _best(history: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the best held-out MRR of each run that was evaluated."""
    best: dict[str, float] = {}
    for line in history:
        if "mrr" in line:
            best[line["stage"]] = max(line["mrr"], best.get(line["stage"], 0.0))
    return best


def _curve(run: Sequence[Mapping[str, Any]], name: str) -> list[tuple[int, float]]:
    return [(line["step"], line[name]) for line in run if line.get(name) is not None]


def sparkline(values: Sequence[float], most: int, *, unicode: bool) -> str:
    """Return a curve as one character for each of at most ``most`` stretches, scaled from lowest to highest."""
    count = min(most, len(values))
    edges = [round(place * len(values) / count) for place in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    levels = _LEVELS if unicode else _PLAIN_LEVELS
    if high - low <= 1e-9 * max(abs(high), abs(low)):
        return levels[0] * count
    return "".join(levels[min(7, int(8 * (mean - low) / (high - low)))] for mean in means)
