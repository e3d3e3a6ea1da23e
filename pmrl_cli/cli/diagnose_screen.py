"""The one screen of ``pmrl diagnose``: every number beside its chance, why, and what to do."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from pmrl_cli.cli import space
from pmrl_cli.cli.table import Column, clipped, screen_width, table
from pmrl_cli.report.shape import Result, at, differences, modalities, pairs, value_at
from pmrl_cli.report.wording import action_text, ci_text, metric_text, number_text

__all__ = ["LINES", "lines", "show"]

LINES = 35
MOST_PAIRS = 6  # those of four modalities
_LONG = 20
_MARKS = {"fail": "x", "warn": "!"}

_HEADLINE = (
    ("adjusted alignment A", "alignment.A", "A"),
    ("sigma_1^2 / k (rho)", "alignment.rho", None),
    ("signed alignment", "alignment.signed", None),
    ("pair AUC", "retrieval.pairwise.AUC", "AUC"),
    ("R@1_standard", "retrieval.pairwise.R@1_standard", "R@1_standard"),
    ("R@1", "retrieval.pairwise.R@1", "R@1"),
    ("MRR", "retrieval.pairwise.MRR", "MRR"),
    ("MRR, others for one", "retrieval.fused.MRR", "fused.MRR"),
    ("label mAP", "retrieval.pairwise.label_mAP", None),
)


def show(result: Result) -> None:
    """Print the screen; bold where a terminal allows."""
    console = space.screen()
    for line in lines(result, screen_width()):
        bold = line.startswith(("pmrl diagnose", "VERDICT"))
        console.print(line, style="bold" if bold else None, soft_wrap=True)


def lines(result: Result, width: int) -> list[str]:
    """Return the screen: at most 35 lines of at most 80 characters for up to four modalities.

    Args:
        result: a diagnosis.
        width: characters of a line.
    """
    verdict = result["verdict"]
    top = [
        *textwrap.wrap(_opening(result), width),
        *textwrap.wrap(result["inputs"]["scope"], width),
        f"VERDICT  {verdict['code']}  [{verdict['severity']}]",
    ]
    blocks = [_headline(result, width), _pairs(result, width), _modalities(result, width)]
    for block in blocks:
        if block:
            top += ["", *block]
    return top + _reasons(result, width, LINES - len(top)) + _contribution(result, width)


def _contribution(result: Result, width: int) -> list[str]:
    """Return what each modality tells of the target, if one was asked for."""
    found = result.get("contribution")
    if found is None:
        return []
    kinds = ("alone", "conditional", "shapley")
    rows = list(found["modality"].values())
    columns = [Column(f"nats of {found['target']}", [*(f"  {name}" for name in found["modality"]), "  all"])]
    for rank, kind in enumerate(kinds):
        total = [number_text(found["all"]["value"]) if kind == "shapley" else ""]
        columns.append(Column(kind, [*(number_text(row[kind]["value"]) for row in rows), *total], rank))
        limits = [*(ci_text(row[kind]["ci"]) for row in rows), ci_text(found["all"]["ci"]) if total[0] else ""]
        columns.append(Column("95% CI", limits, rank + len(kinds)))
    most = "" if found["entropy"] is None else f" of {number_text(found['entropy'])} there are"
    title = f"What each modality tells of {found['target']}{most}; 0 by chance:"
    return ["", *textwrap.wrap(title, width), *table(columns, width=width, first=20)]


def _opening(result: Result) -> str:
    inputs = result["inputs"]
    dims = ", ".join(str(dim) for dim in dict.fromkeys(inputs["dims"].values()))
    groups = f" in {inputs['groups']:,} groups ({inputs['group']})" if inputs["group"] else ""
    stage = " · before alignment" if inputs["stage"] == "pre" else ""
    count = f"{len(inputs['modalities'])} modalities · {dims} dims"
    return f"pmrl diagnose  {count} · {space.count_text(inputs['instances'], 'instance')}{groups}{stage}"


def _headline(result: Result, width: int) -> list[str]:
    rows = [(metric_text(name, result), at(result, path), key) for name, path, key in _HEADLINE]
    rows = [row for row in rows if row[1] is not None]
    if at(result, "retrieval.pairwise.R@1_standard") is not None:
        rows = [row for row in rows if row[2] != "R@1"]  # in a gallery of this data set's own size
    if not rows:
        return []
    changes = dict(differences(result))
    numbers = [number for _, number, _ in rows]
    notes = [_note(name, number, result) for name, number, _ in rows]
    columns = [
        Column("", [name for name, _, _ in rows]),
        Column("value", [number_text(number["value"]) for number in numbers]),
        Column("chance", [number_text(number["chance"]) for number in numbers]),
        Column("95% CI", [ci_text(number["ci"]) for number in numbers], 2),
    ]
    if changes:
        found = [changes.get(key or "") for _, _, key in rows]
        columns.append(Column("change", ["" if one is None else _signed(one["value"]) for one in found]))
        columns.append(Column("p", ["" if one is None else number_text(one["p"]) for one in found], 1))
    else:
        columns.append(Column("", notes, 3))
    lines = table(columns, width=width, first=20)
    if changes:
        lines += textwrap.wrap(f"change: against {result['compare']['baseline']}, paired; intervals in --json", width)
    return lines


def _note(name: str, number: Mapping[str, Any], result: Result) -> str:
    """Return what stands at the end of a line of the headline: a scale, or why there is no number."""
    if number["status"] != "ok":
        return str(number["status"])
    if name == "adjusted alignment A" and number["value"] is not None:
        filled = round(10 * min(max(number["value"], 0), 1))
        return f"0 |{'#' * filled}{'-' * (10 - filled)}| 1"
    return ""


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3f}"


def _marked(name: str, result: Result, *, pair: bool = False) -> str:
    """Return a name with the mark of the gravest finding about it; of a long pair both sides are cut."""
    found = [f["severity"] for f in result["verdict"]["findings"] if name in f["subject"]]
    mark = _MARKS.get(found[0], " ") if found else " "
    if pair and len(name) > _LONG:
        known = result["inputs"]["modalities"]
        sides = next((a, b) for a in known for b in known if f"{a}|{b}" == name)
        name = "|".join(clipped(side, _LONG // 2) for side in sides)
    return f"{mark} {name}"


def _pairs(result: Result, width: int) -> list[str]:
    shown = pairs(result)
    before = result["inputs"]["stage"] == "pre"
    if not shown:
        return []
    title = "pair"
    if len(shown) > MOST_PAIRS:
        key = "probe.R@1" if before else "cosine_adjusted"

        def strength(one: tuple[str, Mapping[str, Any]]) -> float:
            value = value_at(one[1], key)
            return float("-inf") if value is None else value

        weakest = {name for name, _ in sorted(shown, key=strength)[:MOST_PAIRS]}
        title = f"weakest {MOST_PAIRS} of {len(shown)} pairs"
        shown = [one for one in shown if one[0] in weakest]
    names = [_marked(name, result, pair=True) for name, _ in shown] + ["  chance"]
    sections = [section for _, section in shown]

    def column(heading: str, path: str, chance: str, rank: int) -> Column:
        return Column(heading, [*(number_text(value_at(one, path)) for one in sections), chance], rank)

    if before:
        gallery = max((at(one, "probe.gallery") or 0 for one in sections), default=0)
        columns = [
            Column(title, names),
            column("probe R@1", "probe.R@1", number_text(1 / gallery if gallery else None), 0),
            column("shared dims", "probe.shared_dimensions", "0", 0),
            column("bits", "probe.information_bits", "0", 2),
            column("CKA adj", "cka_adjusted", "0", 1),
            column("CKA z", "cka_z", "0", 4),
            column("10-NN adj", "neighbours_adjusted", "0", 3),
        ]
    else:
        gallery = at(result, "retrieval.standard_gallery")
        columns = [
            Column(title, names),
            column("adj cosine", "cosine_adjusted", "0", 0),
            Column("95% CI", [*(ci_text(at(one, "cosine_adjusted.ci")) for one in sections), ""], 4),
            column("z", "z", "0", 2),
            column("gap", "gap.gap_share", "0", 1),
            *_both_ways(shown, gallery),
        ]
    return table(columns, width=width, first=16)


def _both_ways(shown: Sequence[tuple[str, Mapping[str, Any]]], gallery: int | None) -> list[Column]:
    """Return the columns of R@1 from the first to the second modality of each pair, and back."""
    metric = "R@1_standard" if gallery else "R@1"
    cells: list[list[str]] = [[], []]
    for name, section in shown:
        # Either name may hold the bar that divides them: the directions are what is there.
        ways = sorted(section["retrieval"], key=lambda way: not name.startswith(way.split("->")[0]))
        for side, way in zip(cells, [*ways, None, None][:2], strict=True):
            side.append("-" if way is None else number_text(value_at(section["retrieval"][way], metric)))
    chance = number_text(1 / gallery) if gallery else "1/n"
    return [
        Column(f"R@1 {arrow}", [*side, chance], rank)
        for arrow, side, rank in zip(("->", "<-"), cells, (0, 3), strict=True)
    ]


def _modalities(result: Result, width: int) -> list[str]:
    shown = modalities(result)
    dims = result["inputs"]["dims"]
    k = len(shown)
    columns = [Column("modality", [*(_marked(name, result) for name, _ in shown), "  chance"])]
    for heading, path, chance, rank in (
        ("AUC", "consensus_auc", "0.500", 0),
        ("loading", "loading", "-", 4),
        ("cone", "mean_cosine", "0", 2),
        ("gradient", "gradient_share", number_text(1 / max(k, 1)), 3),
        ("mispaired", "mispair_rate", "0", 1),
    ):
        found = [at(section, path) or {"value": None, "status": "ok"} for _, section in shown]
        if any(one["value"] is not None for one in found):
            if path == "loading":
                nulls = [at(section, "loading.chance") for _, section in shown]
                known = [null for null in nulls if null is not None]
                chance = number_text(sum(known) / len(known)) if known else "-"
            cells = [_or_less(one) for one in found]
            columns.append(Column(heading, [*cells, chance], rank))
    used = [f"{number_text(value_at(section, 'participation_ratio'))} of {dims[name]}" for name, section in shown]
    columns.insert(2 if len(columns) > 2 else len(columns), Column("dims used", [*used, "all"], 0))
    return table(columns, width=width, first=16)


def _or_less(number: Mapping[str, Any]) -> str:
    """Return a number; of one that is known to be no more than so much, the end of its interval."""
    if number["status"] == "upper_bound" and number["value"] is not None:
        return f"<{number_text(number['ci'][1] if number['ci'] else number['value'])}"
    return number_text(number["value"])


def _reasons(result: Result, width: int, room: int) -> list[str]:
    """Return why, what would help and what cannot be said, as far as ``room`` lines hold; one reason always."""
    findings = result["verdict"]["findings"]
    blocks = [
        [
            *textwrap.wrap(f"WHY  {finding['text']}", width, subsequent_indent="     "),
            *textwrap.wrap(f"DO   {finding['advice']}", width, subsequent_indent="     "),
            *_command(finding.get("command", ""), width),
        ]
        for finding in findings
    ]
    gains = _gains(result, width)
    shown: list[str] = []
    for place, block in enumerate(blocks):
        rest = len(blocks) - place
        # Two lines are kept for what would help most: it is the answer to every other reason too.
        if place and len(shown) + len(block) + min(len(gains), 2) + (rest > 1) > room:
            codes = ", ".join(dict.fromkeys(finding["code"] for finding in findings[place:]))
            shown.append(textwrap.shorten(f"and {rest} more (--json): {codes}", width, placeholder=" ..."))
            break
        shown += block
    if len(gains) > 1 and len(shown) + 2 <= room:
        shown += gains[: room - len(shown)]
    limits = textwrap.wrap(f"NOTE {'; '.join(result['limits'])}", width, subsequent_indent="     ")
    if result["limits"] and len(shown) + len(limits) <= room:
        shown += limits
    return shown


def _command(command: str, width: int) -> list[str]:
    """Return a command as it can be copied: lines that end in a backslash go on."""
    lines = textwrap.wrap(command, width - 7, break_long_words=False, break_on_hyphens=False)
    return [f"     {line} \\" for line in lines[:-1]] + [f"     {line}" for line in lines[-1:]]


def _gains(result: Result, width: int) -> list[str]:
    """Return the remedies whose gain is beyond chance, three at most."""
    helping = [one for one in result["remedies"] if one["delta"]["ci"] and one["delta"]["ci"][0] > 0][:3]
    if not helping:
        return []
    columns = [
        Column("GAIN on held-out halves", [f"     {action_text(one['action'], one['subject'])}" for one in helping]),
        Column("of", [metric_text(one["metric"], result) for one in helping], 2),
        Column("before", [number_text(one["before"]["value"]) for one in helping], 3),
        Column("gain", [_signed(one["delta"]["value"]) for one in helping]),
        Column("95% CI", [ci_text(one["delta"]["ci"]) for one in helping], 1),
    ]
    return table(columns, width=width, first=min(36, width - 8))
