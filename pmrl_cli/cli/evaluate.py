"""``pmrl evaluate``: cross-modal retrieval with chance values and intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from pmrl_cli.cli import compute, options, space
from pmrl_cli.cli.label_tables import accuracies, class_accuracies, weakest_classes
from pmrl_cli.cli.options import flattened, option
from pmrl_cli.data.read_options import ReadOptions

__all__ = ["command"]

METRICS = {
    "R@1": "R@1",
    "R@5": "R@5",
    "R@10": "R@10",
    "MRR": "MRR",
    "median_rank": "median rank",
    "mAP": "mAP",
    "R-precision": "R-precision",
    "label_mAP": "label mAP",
}
"""Metrics by key, as the screen names them."""

SHORT = {metric: f"pairwise.{metric}" for metric in METRICS} | {
    f"fused.{metric}": f"fused.{metric}" for metric in METRICS if metric != "label_mAP"
}

MOST_DIRECTIONS = 16  # four modalities have 12 and 4 fused


@flattened
def command(
    files: options.Files,
    asked: space.SpaceOptions,
    *,
    queries: Annotated[
        int,
        option("--queries", metavar="N", min=1, help="At most this many queries; all instances are in the gallery."),
    ] = 20_000,
    classes: Annotated[
        str | None,
        option(
            "--classes",
            metavar="NAME",
            help="Modality whose ids are classes: adds zero-shot accuracy of the --label; all its rows count.",
        ),
    ] = None,
    fusion: options.FusionOption = "leading",
    fail_under: space.FailUnder = None,
    reading: ReadOptions,
    computing: compute.ComputeOptions,
    null: options.NullPaths = False,
    seed: options.Seed = 0,
    json: options.Json = False,
    quiet: options.Quiet = False,
    config: options.ConfigFile = None,
) -> None:
    """Cross-modal retrieval in every direction: R@K, MRR and median rank, with confidence intervals.

    In a direction a->b queries are of modality a and candidates of modality b; in others->b a query is fused from all
    other modalities: their leading direction, or (--fusion weighted) the mean that each candidate weights by its
    cosine with them. Equal vectors are one query and one candidate: of an image in five rows all five captions are
    right, and the best of them counts. With --match, so are those of every instance of the same value. Every number
    is shown beside its chance value (a random order) and a 95 % bootstrap interval over independent units.

    With --label, also the weakest classes and a linear probe of the label; with --classes, how often the nearest
    class is the right one.

    Example: pmrl evaluate features/*.h5 --model runs/a --fail-under R@1=0.5
    """
    gates = space.parse_gates(fail_under)
    paths = options.expand_files(files, null=null)
    options.check_inputs(paths, asked.model)
    from pmrl_cli.process_group import process_group
    from pmrl_cli.retrieval import Sampling, evaluate

    with process_group() as processes:
        found = space.read_space(
            paths,
            reading,
            asked,
            computing,
            quiet=quiet,
            processes=processes,
            classes=classes,
        )
        evaluation = evaluate(
            found.dataset,
            classes=found.classes,
            fusion=fusion,
            label=found.label,
            group=found.group,
            match=found.match,
            sampling=Sampling(queries, seed),
            processes=processes,
        )
    if processes.rank:
        return
    result = replace(evaluation, scope=found.instances, leaks=found.leaks).as_dict()
    unmet = space.unmet_gates(result, gates, SHORT)
    if json:
        space.print_json(result)
    else:
        _show(result, labels=asked.label is not None)
    space.exit_if_unmet(unmet)


def _show(result: Mapping[str, Any], *, labels: bool) -> None:
    """Print the screen, with what there is of labels if one was asked for."""
    console = space.screen()
    count = len(result["modalities"])
    named = "1 modality" if count == 1 else f"{count} modalities"
    console.print(f"pmrl evaluate   {named} · {result['dim']} dims", style="bold")
    console.print(result["scope"])
    if result["leaked"]:
        console.print(f"{result['leaked']}: its numbers are optimistic")
    for sentence in result["repeated"]:
        console.print(f"{sentence}: one query, one candidate")
    if result["queries"] < result["instances_in_two"]:
        console.print(f"{result['queries']:,} of them, chosen by hash, are queries; all are in the gallery")
    if result["fused"] is not None and result["fusion"] == "weighted":
        console.print("others: the mean that each candidate weights by its cosine with them")
    tables = [_means(result), _directions(result)] if result["pairwise"] is not None else []
    tables.append(accuracies(result, probe=labels))
    tables.append(class_accuracies(result, probe=labels))
    tables.append(weakest_classes(result["by_class"]) if labels else None)
    for table in tables:
        if table is not None:
            console.print()
            console.print(table)
    drawn = f"{result['bootstrap']:,} bootstrap draws of {_unit(result)}, gallery fixed"
    console.print(f"95% CI: {drawn if result['queries'] else 'bootstrap draws of the instances, classes fixed'}")


def _unit(result: Mapping[str, Any]) -> str:
    """Return what the bootstrap draws."""
    if result["groups"] == result["queries"]:
        return "queries"
    named = [result[name] for name in ("group", "match") if result[name]]
    return f"{result['groups']:,} groups ({', '.join([*named, *(['equal vectors'] if result['repeated'] else [])])})"


def _means(result: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a rich table, whose import waits
    table = space.grid("mean over directions", "value", "chance", "95% CI", first=24)
    for metric, name in METRICS.items():
        if metric in result["pairwise"]:
            table.add_row(name, *space.cells(result["pairwise"][metric]))
    for metric in ("R@1", "MRR"):
        if result["fused"] is not None:
            table.add_row(f"{metric}, fused query", *space.cells(result["fused"][metric]))
    return table


def _directions(result: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a rich table, whose import waits
    directions = result["directions"]
    names = list(directions)
    if len(names) > MOST_DIRECTIONS:
        weakest = sorted(names, key=lambda name: directions[name]["metrics"]["MRR"]["value"])[:MOST_DIRECTIONS]
        names = [name for name in names if name in weakest]
    title = "direction" if len(names) == len(directions) else f"weakest {len(names)} of {len(directions)}"
    table = space.grid(title, "R@1", "chance", "95% CI", "MRR", "chance", "95% CI", first=22)
    for name in names:
        metrics = directions[name]["metrics"]
        table.add_row(name, *space.cells(metrics["R@1"]), *space.cells(metrics["MRR"]))
    return table
