"""``pmrl diagnose``: is it aligned beyond chance, how well, and what is wrong."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pmrl_cli.cli import instances, options, space, states
from pmrl_cli.cli.options import Join, OnBad, option

__all__ = ["command", "conclude", "unmet_conditions"]

SHORT = {
    "A": "alignment.A",
    "rho": "alignment.rho",
    "signed": "alignment.signed",
    "AUC": "retrieval.pairwise.AUC",
    "R@1": "retrieval.pairwise.R@1",
    "R@1_standard": "retrieval.pairwise.R@1_standard",
    "MRR": "retrieval.pairwise.MRR",
    "fused.MRR": "retrieval.fused.MRR",
    "label_mAP": "retrieval.pairwise.label_mAP",
}

LINES = 34
MOST_PAIRS = 6  # those of four modalities


def command(
    files: options.Files,
    model: space.Model = None,
    split: space.SplitOption = space.Split.auto,
    labels: options.LabelsFile = None,
    label: space.Label = None,
    group: space.Group = None,
    partial: Annotated[
        Path | None,
        option("--partial", metavar="STATE", help="Write the state of these instances, for pmrl merge; no report."),
    ] = None,
    per_instance: Annotated[
        Path | None,
        option("--per-instance", metavar="PARQUET", help="Write one row an instance: rho, agreement, suspicion."),
    ] = None,
    suspects: Annotated[
        Path | None,
        option("--suspects", metavar="CSV", help="Write the instances that look mispaired, for fit --exclude."),
    ] = None,
    fail_under: space.FailUnder = None,
    fail_on: space.FailOnOption = None,
    join: options.JoinOption = Join.outer,
    on_bad: options.OnBadOption = OnBad.error,
    id_column: options.IdColumn = None,
    feature_column: options.FeatureColumn = None,
    null: options.NullPaths = False,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    threads: options.Threads = None,
    max_memory: options.MaxMemory = None,
    force: options.Force = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    config: options.ConfigFile = None,
) -> None:
    """Say whether the modalities are aligned beyond chance, how well, and what is wrong if they are not.

    Chance is what the same vectors give when their pairs are shuffled. A is 0 for shuffled pairs and 1 where all
    modalities of every instance coincide.
    """
    gates = space.parse_gates(fail_under)
    if partial is not None:
        whole = {
            "--fail-under": fail_under,
            "--fail-on": fail_on,
            "--per-instance": per_instance,
            "--suspects": suspects,
        }
        states.check(partial, whole, force=force)
    instances.check_outputs(per_instance, suspects, force=force)
    found = space.read_space(
        options.expand_files(files, null=null),
        model=model,
        split=split,
        label=label,
        group=group,
        device=device,
        threads=threads,
        max_memory=max_memory,
        quiet=quiet,
        join=join.value,
        on_bad=on_bad.value,
        id_column=id_column,
        feature_column=feature_column,
        labels=labels,
    )
    from pmrl_cli.diagnosis import diagnose_state, state_of

    digest = ""
    if partial is not None and model is not None:  # states of different models do not merge
        from pmrl_cli.files.model_folder import WEIGHTS, sha256_of

        digest = sha256_of(model / WEIGHTS)
    state = state_of(
        found.dataset, label=found.label, group=found.group, seed=seed, columns=found.columns, model=digest
    )
    if partial is not None:
        states.write(state, partial, as_json=json)
        return
    diagnosis = diagnose_state(state, found.dataset)
    result = diagnosis.as_dict()
    result["inputs"] |= {"scope": found.instances, "model": None if model is None else str(model)}
    unmet = unmet_conditions(result, gates, fail_on)
    if per_instance is not None or suspects is not None:
        listed = instances.write_tables(found.dataset, diagnosis.mispairs, per_instance, suspects)
        if suspects is not None and not quiet:
            typer.echo(f"note: {space.count_text(listed, 'suspect')} in {suspects}", err=True)
    conclude(result, unmet, as_json=json)


def unmet_conditions(
    result: Mapping[str, Any], gates: Sequence[space.Gate], fail_on: space.FailOn | None
) -> list[str]:
    """Return a sentence for each gate that is not met, the verdict's severity among them."""
    unmet = space.unmet_gates(result, gates, SHORT)
    verdict = result["verdict"]
    if fail_on is not None and verdict["severity"] in ("fail", fail_on.value):
        unmet.append(f"not met: the verdict is {verdict['code']} [{verdict['severity']}]")
    return unmet


def conclude(result: Mapping[str, Any], unmet: Sequence[str], *, as_json: bool) -> None:
    """Print a diagnosis and leave, with 1 if something is not met."""
    if as_json:
        space.print_json(result)
    else:
        _show(result)
    space.leave(unmet)


def _show(result: Mapping[str, Any]) -> None:
    """Print the screen."""
    console = space.screen()
    verdict, inputs = result["verdict"], result["inputs"]
    groups = f" in {inputs['groups']:,} groups ({inputs['group']})" if inputs["group"] else ""
    dims = list(dict.fromkeys(inputs["dims"].values()))
    count = f"{len(inputs['modalities'])} modalities · {', '.join(map(str, dims))} dims"
    instances = space.count_text(inputs["instances"], "instance")
    tables = [_pairs(result), _modalities(result)]
    if result["alignment"] is not None:
        tables.insert(0, _headline(result))
    console.print(f"pmrl diagnose   {count} · {instances}{groups}", style="bold")
    console.print(inputs["scope"])
    console.print(f"VERDICT  {verdict['code']}  [{verdict['severity']}]", style="bold")
    used = 3
    for table in tables:
        console.print()
        console.print(table)
        used += 2 + table.row_count
    for line in _reasons(verdict["findings"], LINES - used):
        console.print(line)


def _headline(result: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a rich table, whose import waits
    alignment, retrieval = result["alignment"], result["retrieval"]
    rows = [
        ("adjusted alignment A", alignment["A"]),
        ("sigma_1^2 / k (rho)", alignment["rho"]),
        ("signed: |mean vector|^2", alignment["signed"]),
        ("pair AUC", retrieval["pairwise"].get("AUC")),
        (f"R@1 in {result['retrieval']['standard_gallery'] or 0:,}", retrieval["pairwise"].get("R@1_standard")),
        ("MRR", retrieval["pairwise"]["MRR"]),
        ("MRR, others for one", (retrieval["fused"] or {}).get("MRR")),
        ("label mAP", retrieval["pairwise"].get("label_mAP")),
    ]
    table = space.grid("", "value", "chance", "95% CI", first=24)
    for name, number in rows:
        if number is not None:
            value, chance = space.number_text(number["value"]), space.number_text(number["chance"])
            note = f"  {number['status']}" if number["status"] != "ok" else ""
            table.add_row(name, value, chance, space.ci_text(number["ci"]) + note)
    return table


def _pairs(result: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a rich table, whose import waits
    pairs = result["pair"]
    names = list(pairs)
    if len(names) > MOST_PAIRS:

        def weakness(name: str) -> float:
            adjusted = pairs[name]["adj"]["value"]
            return float("-inf") if adjusted is None else float(adjusted)

        weakest = sorted(names, key=weakness)[:MOST_PAIRS]
        names = [name for name in names if name in weakest]
    title = "pair" if len(names) == len(pairs) else f"weakest {len(names)} of {len(pairs)}"
    headings = ("adj cosine", "95% CI", "z", "gap share", "R@1 ->", "R@1 <-")
    table = space.grid(title, *headings, first=20)
    for name in names:
        found = pairs[name]
        both_ways = [space.number_text(direction["R@1"]["value"]) for direction in found["retrieval"].values()]
        both_ways += ["-"] * (2 - len(both_ways))
        table.add_row(
            name,
            space.number_text(found["adj"]["value"]),
            space.ci_text(found["adj"]["ci"]),
            space.number_text(found["z"]["value"]),
            space.number_text(found["gap"].get("gap_share", {}).get("value")),
            *both_ways,
        )
    table.add_row("chance", "0", "", "0", "1/n", "1/n", "1/n", style="dim")
    return table


def _modalities(result: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a rich table, whose import waits
    table = space.grid("modality", "load", "chance", "95% CI", "cone", "dims used", first=20)
    for name, found in result["modality"].items():
        load = found["load"]
        table.add_row(
            name,
            space.number_text(load["value"]),
            space.number_text(load["chance"]),
            space.ci_text(load["ci"]),
            space.number_text(found["meancos"]["value"]),
            f"{space.number_text(found['pr_deb']['value'])} of {result['inputs']['dims'][name]}",
        )
    return table


def _reasons(findings: Sequence[Mapping[str, Any]], room: int) -> list[str]:
    """Return what was found and what to do, as many findings as ``room`` lines hold."""
    lines: list[str] = []
    for shown, finding in enumerate(findings):
        block = [
            *textwrap.wrap(f"WHY  {finding['text']}", space.WIDTH, subsequent_indent="     "),
            *textwrap.wrap(f"DO   {finding['advice']}", space.WIDTH, subsequent_indent="     "),
        ]
        rest = len(findings) - shown
        if shown and len(lines) + len(block) + (rest > 1) > room:
            codes = dict.fromkeys(left["code"] for left in findings[shown:])
            lines.append(f"and {rest} more (--json): {', '.join(codes)}"[: space.WIDTH])
            break
        lines += block
    return lines
