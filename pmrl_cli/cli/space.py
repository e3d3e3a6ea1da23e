"""What ``pmrl evaluate`` and ``pmrl diagnose`` share: the space they evaluate, gates, and numbers on a screen."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

import typer

from pmrl_cli.cli import compute
from pmrl_cli.cli.messages import say
from pmrl_cli.cli.options import option
from pmrl_cli.cli.table import WIDTH
from pmrl_cli.data.read_options import ReadOptions
from pmrl_cli.errors import UsageError
from pmrl_cli.flags import flag
from pmrl_cli.report.wording import ci_text, number_text

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from rich.console import Console
    from rich.table import Table

    from pmrl_cli.data.dataset import Dataset
    from pmrl_cli.data.leaks import Leaks
    from pmrl_cli.process_group import ProcessGroup

__all__ = [
    "WIDTH",
    "FailOn",
    "FailOnOption",
    "FailUnder",
    "Gate",
    "Space",
    "SpaceOptions",
    "cells",
    "ci_text",
    "count_text",
    "exit_if_unmet",
    "grid",
    "is_model",
    "number_text",
    "parse_gates",
    "print_json",
    "read_space",
    "screen",
    "unmet_gates",
]


class FailOn(StrEnum):
    """Severity of a verdict that is not accepted."""

    warn = "warn"
    fail = "fail"


@dataclass(frozen=True)
class SpaceOptions:
    """Which vectors of which instances are evaluated."""

    PANEL: ClassVar = "What is evaluated"

    model: Path | None = flag(
        None, "--model", help="Model folder that pmrl fit wrote; else the features share a space."
    )
    split: Literal["auto", "train", "validation", "test", "all"] = flag(
        "auto",
        "--split",
        metavar="PART",
        help="Instances to evaluate the model on: train, validation, test or all; auto: those fit never saw, "
        "else validation.",
    )
    label: str | None = flag(None, "--label", help="Side column of labels: adds label retrieval (default: label).")
    group: str | None = flag(None, "--group", help="Side column of groups that are not independent (default: group).")
    match: str | None = flag(
        None, "--match", help="Side column; instances of one value show the same thing: each is right for the others."
    )


FailUnder = Annotated[
    list[str] | None,
    option(
        "--fail-under", metavar="KEY=VALUE", help="Exit 1 if KEY is under VALUE; dotted paths of --json; repeatable."
    ),
]


FailOnOption = Annotated[
    FailOn | None, option("--fail-on", help="Exit 1 if the verdict is as severe as this, or more.")
]


class Space(NamedTuple):
    """Modalities in one space.

    Args:
        dataset: vectors of one dim, and the side columns.
        instances: a sentence on which instances these are.
        label: side column of labels, if any.
        group: side column of groups, if any.
        match: side column of instances that show the same thing, if any.
        columns: of each modality in its files.
        leaks: what they share with the instances that trained the model; None without a model.
        classes: what a modality of classes holds, in the same space; None where none is one.
    """

    dataset: Dataset
    instances: str
    label: str | None
    group: str | None
    match: str | None
    columns: tuple[int, ...]
    leaks: Leaks | None
    classes: Dataset | None = None


def read_space(
    files: list[str],
    reading: ReadOptions,
    asked: SpaceOptions,
    computing: compute.ComputeOptions,
    *,
    quiet: bool,
    processes: ProcessGroup,
    shard: tuple[int, int] | None = None,
    classes: str | None = None,
) -> Space:
    """Read the files and, with a model, embed the instances it is to be evaluated on.

    A shard (its number from 0 on, and how many there are) takes only its rows of these instances; of a store no
    others are read.

    Of several processes each embeds a shard of the instances and gets all. Instances of a modality of ``classes`` are
    no instances: of them all are taken.

    Raises: UsageError for --split without --model; whatever reading and embedding raise.
    """
    _check_split(asked)
    from pmrl_cli.data.columns import group_column, label_column
    from pmrl_cli.data.repeats import with_hashes
    from pmrl_cli.files.join.dataset import read_dataset
    from pmrl_cli.retrieval.batches import scope_of

    aligner = None
    if asked.model is not None:  # before the features, which may take long to read
        from pmrl_cli.aligner import Aligner

        aligner = Aligner.load(asked.model, device=computing.device)
    dataset = read_dataset(files, reading if classes is None else replace(reading, min_modalities=1))
    if not quiet and processes.rank == 0:
        for note in dataset.notes:
            say(f"note: {note}")
    compute.prepare(computing.threads)
    of_classes = None
    if classes is not None:
        from pmrl_cli.retrieval.zero_shot import split_off_classes

        dataset, of_classes = split_off_classes(dataset, classes)
    columns, rows, instances, leaks = dataset.dims, None, scope_of(dataset), None
    if aligner is not None:
        dataset = with_hashes(dataset)
        rows, instances = aligner.rows(dataset, asked.split)
        leaks = aligner.leaks(dataset, rows)
    if shard is not None:
        dataset, rows = _part_of(dataset, rows, shard)
    if aligner is not None:
        dataset = aligner.embed_dataset(dataset, rows, max_memory=reading.max_memory, processes=processes)
        of_classes = None if of_classes is None else aligner.embed_dataset(of_classes)
    label, group = label_column(dataset, asked.label), group_column(dataset, asked.group)
    return Space(dataset, instances, label, group, asked.match, columns, leaks, of_classes)


def _check_split(asked: SpaceOptions) -> None:
    if asked.model is None and asked.split not in ("auto", "all"):
        raise UsageError(
            what="--split without --model",
            found=f"--split {asked.split}",
            expected="a model, which has the split",
            next_step="Pass --model MODEL.",
        )


def _part_of(
    dataset: Dataset, rows: npt.NDArray[np.int64] | None, shard: tuple[int, int]
) -> tuple[Dataset, npt.NDArray[np.int64] | None]:
    """Return a data set and its rows that are one shard of these rows (None for all)."""
    from pmrl_cli.data.shards import shard_rows
    from pmrl_cli.retrieval.batches import check_pairs

    check_pairs(dataset)  # now, for the shard may have no pair where the whole has
    if rows is None:
        return dataset.part(shard_rows(len(dataset), *shard)), None
    return dataset, rows[shard_rows(len(rows), *shard)]


def is_model(paths: Sequence[str]) -> bool:
    """Whether the paths are one model folder and nothing else."""
    from pmrl_cli.files.artifacts.model import FORMAT
    from pmrl_cli.files.durable.outputs import format_of

    return len(paths) == 1 and format_of(Path(paths[0])) == FORMAT


class Gate(NamedTuple):
    """One --fail-under: the key must not be under the value."""

    key: str
    value: float


def parse_gates(texts: Sequence[str] | None) -> list[Gate]:
    """Read the --fail-under options.

    Raises: UsageError for one that is not KEY=NUMBER.
    """
    gates = []
    for text in texts or ():
        key, _, value = text.rpartition("=")
        try:
            gate = Gate(key.strip(), float(value))
        except ValueError:
            gate = Gate("", math.nan)
        if not gate.key or math.isnan(gate.value):
            raise UsageError(
                what="--fail-under is not KEY=NUMBER",
                found=repr(text),
                expected="for example R@1=0.5",
                next_step="Fix that --fail-under.",
            )
        gates.append(gate)
    return gates


def _numbers(node: object, path: str = "") -> Iterator[tuple[str, float | None]]:
    """Yield every number of a result by its dotted path; a statistic is its value."""
    if isinstance(node, Mapping):
        if "value" in node:
            yield path, node["value"]
            return
        for key, child in node.items():
            yield from _numbers(child, f"{path}.{key}" if path else str(key))
    elif isinstance(node, int | float) and not isinstance(node, bool):
        yield path, float(node)


def unmet_gates(result: Mapping[str, Any], gates: Sequence[Gate], short: Mapping[str, str]) -> list[str]:
    """Return a sentence for each gate that is not met; called before anything is printed.

    Args:
        result: JSON values.
        gates: from ``parse_gates``.
        short: dotted path by the short name that the screen shows.

    Raises: UsageError for a gate on an unknown key.
    """
    known = dict(_numbers(result))
    sentences = []
    for gate in gates:
        path = short.get(gate.key, gate.key)
        if path not in known:
            what = "unknown key of --fail-under"
            names = ", ".join(name for name, path in short.items() if path in known)
            raise UsageError(
                what,
                found=repr(gate.key),
                expected=f"one of {names}, or a dotted path of --json such as {next(iter(known))}",
                next_step="Fix that --fail-under.",
            )
        value = known[path]
        if value is None or value < gate.value:
            sentences.append(f"not met: {gate.key} is {number_text(value)}, under {gate.value:g}")
    return sentences


def print_json(result: Mapping[str, Any]) -> None:
    """Print a result on standard output."""
    typer.echo(json.dumps(result, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False))


def exit_if_unmet(sentences: Sequence[str]) -> None:
    """Print what is not met and exit with code 1; do nothing if all is.

    Raises: typer.Exit(1) if there is any.
    """
    for sentence in sentences:
        say(sentence)
    if sentences:
        raise typer.Exit(1)


def count_text(count: int, noun: str) -> str:
    """Return a count with its noun in the right number."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def cells(number: Mapping[str, Any]) -> list[str]:
    """Return value, chance and interval of a number as a table shows them."""
    return [number_text(number["value"]), number_text(number["chance"]), ci_text(number["ci"])]


def screen() -> Console:
    """Return a console of 80 columns on standard output; no colour off a terminal or under NO_COLOR."""
    from rich.console import Console

    return Console(file=sys.stdout, width=WIDTH, highlight=False, markup=False, emoji=False)


def grid(*headings: str, first: int) -> Table:
    """Return a table without lines: a left column of at most ``first`` characters, the others to the right."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    table.add_column(headings[0], no_wrap=True, overflow="ellipsis", min_width=first, max_width=first)
    for heading in headings[1:]:
        table.add_column(heading, justify="right", no_wrap=True)
    return table
