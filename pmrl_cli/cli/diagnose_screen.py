"""The screen of ``pmrl diagnose``: the verdict, what to do first, the numbers that matter; all else with --full."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from pmrl_cli.cli import diagnose_tables, space
from pmrl_cli.cli.table import Column, bar, screen_width, table, unicode_screen
from pmrl_cli.report.shape import Result, differences, value_at
from pmrl_cli.report.wording import (
    MARKS,
    action_text,
    ci_text,
    helps,
    main_numbers,
    metric_text,
    mispair_text,
    number_text,
)

__all__ = ["lines", "show"]

_MOST_FINDINGS = 3
_MOST_PAIRS = 5
_LEAST_BAR = 10  # characters
_NAME = 26
_COLOURS = {"fail": "bold red", "warn": "bold yellow", "info": "bold green"}


def show(result: Result, *, full: bool = False) -> None:
    """Print the screen; in colour where a terminal allows.

    Args:
        result: a diagnosis.
        full: every table.
    """
    from rich.text import Text

    console = space.screen()
    for number, line in enumerate(lines(result, screen_width(), full=full, unicode=unicode_screen())):
        text = Text(line, style="bold" if number == 0 else "")
        for severity, colour in _COLOURS.items():
            text.highlight_regex(rf"^([x!] )?[A-Z_]+ \[{severity}\]", colour)
        text.highlight_regex("█+", "green")
        text.highlight_regex("^x ", "red")
        text.highlight_regex("^! ", "yellow")
        text.highlight_regex("^(note|more|bars): .*", "dim")
        console.print(text, soft_wrap=True)


def lines(result: Result, width: int, *, full: bool = False, unicode: bool = True) -> list[str]:
    """Return the screen.

    Args:
        result: a diagnosis.
        width: characters of a line.
        full: every table, finding and limit.
        unicode: whether block characters can be written.
    """
    blocks = [
        _opening(result, width),
        _findings(result, width, full=full),
        _numbers(result, width, unicode=unicode),
        diagnose_tables.contribution(result, width),
        _gains(result, width),
    ]
    if full:
        blocks += diagnose_tables.full(result, width)
        notes = [note for note in (mispair_text(result), *result["limits"]) if note]
        blocks.append([line for note in notes for line in _hanging("note: ", note, width)])
    else:
        blocks.append(_hanging("more: ", "--full (each pair, each modality), --report PAGE.html, --json", width))
    shown: list[str] = []
    for block in blocks:
        shown += ["", *block] if shown and block else block
    return shown


def _hanging(head: str, text: str, width: int) -> list[str]:
    return textwrap.wrap(
        head + text, width, subsequent_indent=" " * len(head), break_long_words=False, break_on_hyphens=False
    )


def _opening(result: Result, width: int) -> list[str]:
    inputs = result["inputs"]
    dims = ", ".join(str(dim) for dim in dict.fromkeys(inputs["dims"].values()))
    stage = " · before alignment" if inputs["stage"] == "pre" else ""
    unit = inputs["group"] or inputs.get("match")
    groups = f", in {inputs['groups']:,} groups ({unit})" if unit else ""
    return [
        *textwrap.wrap(f"pmrl diagnose  {len(inputs['modalities'])} modalities · {dims} dims{stage}", width),
        *textwrap.wrap(inputs["scope"] + groups, width),
    ]


def _findings(result: Result, width: int, *, full: bool) -> list[str]:
    """Return the verdict, the gravest finding, with what to do first; then the others."""
    findings = result["verdict"]["findings"]
    shown: list[str] = []
    for place, finding in enumerate(findings if full else findings[:_MOST_FINDINGS]):
        mark = "" if finding["severity"] == "info" else f"{MARKS[finding['severity']]} "
        head = f"{mark}{finding['code']} [{finding['severity']}]  "
        do = "do first: " if place == 0 and len(findings) > 1 else "do: " if place == 0 else "then: "
        shown += textwrap.wrap(head + finding["text"], width, subsequent_indent="  ")
        shown += textwrap.wrap(f"  {do}{finding['advice']}", width, subsequent_indent="    ")
        shown += _command(finding.get("command", ""), width)
    if not full and findings[_MOST_FINDINGS:]:
        codes = ", ".join(dict.fromkeys(finding["code"] for finding in findings[_MOST_FINDINGS:]))
        shown += _hanging("  ", f"and {len(findings) - _MOST_FINDINGS} more (--full): {codes}", width)
    return shown


def _command(command: str, width: int) -> list[str]:
    """Return a command as it can be copied: lines that end in a backslash go on."""
    parts = textwrap.wrap(command, width - 6, break_long_words=False, break_on_hyphens=False)
    return [f"    {part} \\" for part in parts[:-1]] + [f"    {part}" for part in parts[-1:]]


def _numbers(result: Result, width: int, *, unicode: bool) -> list[str]:
    """Return the numbers that matter, each with its chance, a bar and its interval."""
    rows = main_numbers(result)
    changes = dict(differences(result))
    title = f"change against {result['compare']['baseline']}" if changes else ""
    if not rows:  # before alignment: what a linear adapter would reach
        reached = [
            (name, pair["probe"])
            for name, pair in diagnose_tables.weakest_pairs(result, _MOST_PAIRS, "probe.R@1")
            if pair.get("probe") and value_at(pair, "probe.R@1") is not None
        ]
        if not reached:
            return []
        rows = [("", name, probe["R@1"]) for name, probe in reached]
        title = f"partner first of {max(probe['gallery'] for _, probe in reached):,}, linear adapter"
    columns = [
        Column(title, [name for _, name, _ in rows]),
        Column("value", [number_text(number["value"]) for _, _, number in rows]),
        Column("chance", [number_text(number["chance"]) for _, _, number in rows]),
        Column("95% CI", [_interval(number) for _, _, number in rows], 2),
    ]
    if changes:
        found = [changes.get(key) for key, _, _ in rows]
        columns.append(Column("change", ["" if one is None else f"{one['value']:+.3f}" for one in found]))
        columns.append(Column("p", ["" if one is None else number_text(one["p"]) for one in found], 1))
        return table(columns, width=width, first=20)
    plain = table(columns, width=width, first=_NAME)
    room = width - 2 - max(map(len, plain))
    if room < _LEAST_BAR:
        return plain
    bars = [bar(number["value"], number["chance"], room, unicode=unicode) for _, _, number in rows]
    columns.insert(3, Column("0" + "1".rjust(room - 1), bars))
    light, full = ("░", "█") if unicode else ("=", "#")
    return [*table(columns, width=width, first=_NAME), f"bars: {light} by chance, {full} beyond it"]


def _interval(number: Mapping[str, Any]) -> str:
    return ci_text(number["ci"]) if number["status"] == "ok" else str(number["status"])


def _gains(result: Result, width: int) -> list[str]:
    """Return the remedies whose gain is beyond chance, three at most."""
    helping = [one for one in result["remedies"] if helps(one)][:3]
    if not helping:
        return []
    columns = [
        Column("would help, on held-out halves", [action_text(one["action"], one["subject"]) for one in helping]),
        Column("of", [metric_text(one["metric"], result) for one in helping], 2),
        Column("before", [number_text(one["before"]["value"]) for one in helping], 3),
        Column("gain", [f"{one['delta']['value']:+.3f}" for one in helping]),
        Column("95% CI", [ci_text(one["delta"]["ci"]) for one in helping], 1),
    ]
    return table(columns, width=width, first=min(30, width - 8))
