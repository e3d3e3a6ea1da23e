"""The tables of ``pmrl diagnose --full``: every number beside its chance, each pair and each modality."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from pmrl_cli.cli.table import Column, clipped, table
from pmrl_cli.report.shape import Result, at, differences, modalities, pairs, value_at
from pmrl_cli.report.wording import MARKS, ci_text, difference_text, main_numbers, number_text

__all__ = ["contribution", "full", "weakest_pairs"]

_LONG = 20
_OTHERS = (
    ("sigma_1^2 / k (rho)", "alignment.rho"),
    ("squared length of the mean (signed)", "alignment.signed"),
    ("MRR, fused query", "retrieval.fused.MRR"),
)


def full(result: Result, width: int) -> list[list[str]]:
    """Return the tables, each a list of lines: changes, further numbers, pairs, modalities.

    Args:
        result: a diagnosis.
        width: characters of a line.
    """
    tables = (_changes, _others, _pairs, _modalities)
    return [block for draw in tables if (block := draw(result, width))]


def _others(result: Result, width: int) -> list[str]:
    main = {name for _, name, _ in main_numbers(result)}
    found = [(name, at(result, path)) for name, path in _OTHERS if name not in main]
    rows = [(name, number) for name, number in found if number is not None]
    if not rows:
        return []
    columns = [
        Column("further numbers", [name for name, _ in rows]),
        Column("value", [number_text(number["value"]) for _, number in rows]),
        Column("chance", [number_text(number["chance"]) for _, number in rows]),
        Column("95% CI", [ci_text(number["ci"]) for _, number in rows], 1),
    ]
    return table(columns, width=width, first=20)


def _changes(result: Result, width: int) -> list[str]:
    """Return how the diagnosis differs from the one it is compared with: no line where it is compared with none."""
    found = differences(result)
    if not found:
        return []
    title = f"change against {clipped(str(result['compare']['baseline']), 40)}"
    columns = [
        Column(title, [difference_text(name, result) for name, _ in found]),
        Column("before", [number_text(one["before"]) for _, one in found], 2),
        Column("now", [number_text(one["after"]) for _, one in found]),
        Column("change", [f"{one['value']:+.3f}" for _, one in found]),
        Column("95% CI", [ci_text(one["ci"]) for _, one in found], 3),
        Column("p", [number_text(one["p"]) for _, one in found], 1),
    ]
    return table(columns, width=width, first=20)


def weakest_pairs(result: Result, most: int, path: str) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the pairs with the lowest value at a path, in the order of the modalities."""
    shown = pairs(result)

    def strength(one: tuple[str, Mapping[str, Any]]) -> float:
        value = value_at(one[1], path)
        return float("-inf") if value is None else value

    kept = {name for name, _ in sorted(shown, key=strength)[:most]}
    return [one for one in shown if one[0] in kept]


def _marked(name: str, result: Result, *, pair: bool = False) -> str:
    """Return a name with the mark of the gravest finding about it; of a long pair both sides are cut."""
    found = [f["severity"] for f in result["verdict"]["findings"] if name in f["subject"]]
    mark = MARKS[found[0]] if found else " "
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
            Column(f"{title} (R@1 in {gallery:,})" if gallery else title, names),
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
        ("consensus", "consensus_auc", "0.500", 0),
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
    """Return a share; of one that is known to be no more than so much, the end of its interval."""
    if number["status"] == "upper_bound" and number["value"] is not None:
        return f"<{number_text(number['ci'][1] if number['ci'] else number['value'])}"
    value = number["value"]
    return number_text(None if value is None else round(value, 3))


def contribution(result: Result, width: int) -> list[str]:
    """Return the information of each modality on the target; no line without a target."""
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
    title = f"Information of each modality on {found['target']}{most}; 0 by chance:"
    lines = [*textwrap.wrap(title, width), *table(columns, width=width, first=20)]
    if found["all"]["value"] is None:
        from pmrl_cli.diagnosis.contribution import FEWEST, RARE

        why = (
            f"Not estimated: {found['all']['n']:,} instances have all modalities and a class that {RARE} or more "
            f"have; {FEWEST} are needed."
        )
        lines += textwrap.wrap(why, width)
    return lines
