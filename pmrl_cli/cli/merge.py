"""``pmrl merge``: partial states of a diagnosis to the diagnosis of all their instances."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pmrl_cli.cli import diagnose, options, reports, space, states
from pmrl_cli.cli.messages import say
from pmrl_cli.cli.options import flattened, option
from pmrl_cli.errors import DataError, Place, UsageError

__all__ = ["command"]


@flattened
def command(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="STATES", help="Files that pmrl diagnose --partial wrote.", show_default=False),
    ],
    output: Annotated[Path | None, option("-o", "--output", help="Write the merged state there; no report.")] = None,
    *,
    drawn: reports.Drawn,
    compare: reports.Compare = None,
    full: reports.Full = False,
    fail_under: space.FailUnder = None,
    fail_on: space.FailOnOption = None,
    force: options.Force = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    config: options.ConfigFile = None,
) -> None:
    """Merge the partial states of a diagnosis: what pmrl diagnose would say of all their instances at once.

    Every instance must be in one state; the states must have been made with the same options.

    Example: pmrl merge *.state
    """
    gates = space.parse_gates(fail_under)
    if output is not None:
        whole = {
            "--report": drawn.report,
            "--figures": drawn.figures,
            "--compare": compare,
            "--fail-under": fail_under,
            "--fail-on": fail_on,
        }
        states.check(output, whole, force=force)
        if output.resolve() in {path.resolve() for path in files}:
            raise UsageError(
                what="output is an input",
                at=Place(str(output)),
                found="one of the states",
                expected="a new path",
                next_step="Choose one.",
            )
    baseline = reports.check(drawn, compare, force=force)
    merged = states.read(files[0])
    for path in files[1:]:
        merged.merge(states.read(path), name=str(path))
    missing = sorted(set(range(merged.header.shards)) - set(merged.shards.tolist())) if len(merged.shards) else []
    if missing and not quiet:
        shown = ", ".join(f"{index + 1}/{merged.header.shards}" for index in missing[:5])
        say(f"note: these are not all shards: {shown}{', …' if missing[5:] else ''} missing.")
    if output is not None:
        states.write(merged, output, as_json=json)
        return
    if merged.instances == 0:
        raise DataError(
            what="no instance in these states",
            at=Place(str(files[0])),
            found="empty shards only",
            expected="one that has two modalities",
            next_step="Merge the states of all shards.",
        )
    from pmrl_cli.diagnosis import diagnose_state

    instances = space.count_text(merged.instances, "instance")
    scope = f"{instances} of {space.count_text(len(files), 'state')}"
    if not quiet:
        needs = "runs of mispaired rows, shifted joins and leaks need the rows"
        say(f"note: {needs}: pmrl diagnose FILES looks for them.")
    command = {"files": ["FILES"], "options": [], "model": "MODEL" if merged.header.model else None}
    result = diagnose_state(merged, inputs={"scope": scope, "model": None, "command": command}).result
    reports.add_comparison(result, baseline, compare)
    reports.write(result, drawn, force=force)
    diagnose.conclude(result, diagnose.unmet_conditions(result, gates, fail_on), as_json=json, full=full)
