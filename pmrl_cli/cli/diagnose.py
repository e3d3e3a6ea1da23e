"""``pmrl diagnose``: is it aligned beyond chance, how well, and what is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pmrl_cli.cli import diagnose_screen, options, space
from pmrl_cli.cli.options import Join, OnBad, option
from pmrl_cli.errors import UsageError

if TYPE_CHECKING:
    from pmrl_cli.diagnosis import State

__all__ = ["check_partial", "command", "conclude", "write"]

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
        check_partial(partial, fail_under=fail_under, fail_on=fail_on, force=force)
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
        write(state, partial, as_json=json)
        return
    result = diagnose_state(state).as_dict()
    result["inputs"] |= {"scope": found.instances, "model": None if model is None else str(model)}
    conclude(result, gates, fail_on, as_json=json)


def check_partial(path: Path, *, fail_under: object, fail_on: object, force: bool) -> None:
    """Refuse --partial beside what needs a whole diagnosis, or over a file that is no state."""
    if fail_under or fail_on:
        what = "--partial with a gate"
        raise UsageError(
            what,
            found="--fail-under or --fail-on",
            expected="none: a partial state has no verdict",
            next_step="Give it to pmrl merge.",
        )
    from pmrl_cli.files.outputs import check_file
    from pmrl_cli.files.states import STATE_MARKER

    check_file(path, STATE_MARKER, force=force)


def write(state: State, path: Path, *, as_json: bool) -> None:
    """Write a state and print its path."""
    from pmrl_cli.files.states import STATE, write_state

    write_state(path, state.header.as_dict(), state.arrays())
    if as_json:
        space.print_json({"schema": f"{STATE}/1", "state": str(path), "instances": state.instances})
    else:
        typer.echo(str(path))


def conclude(
    result: Mapping[str, Any], gates: Sequence[space.Gate], fail_on: space.FailOn | None, *, as_json: bool
) -> None:
    """Print a diagnosis and leave, with 1 if a gate is not met."""
    unmet = space.unmet_gates(result, gates, SHORT)
    verdict = result["verdict"]
    if fail_on is not None and verdict["severity"] in ("fail", fail_on.value):
        unmet.append(f"not met: the verdict is {verdict['code']} [{verdict['severity']}]")
    if as_json:
        space.print_json(result)
    else:
        diagnose_screen.show(result)
    space.leave(unmet)
