"""``pmrl merge``: partial states of a diagnosis to the diagnosis of all their instances."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pmrl_cli.cli import diagnose, options, space
from pmrl_cli.cli.options import option
from pmrl_cli.errors import DataError, Place, PmrlError, UsageError

if TYPE_CHECKING:
    from pmrl_cli.diagnosis import State

__all__ = ["command"]


def command(
    states: Annotated[
        list[Path],
        typer.Argument(metavar="STATES", help="Files that pmrl diagnose --partial wrote.", show_default=False),
    ],
    output: Annotated[Path | None, option("-o", "--output", help="Write the merged state there; no report.")] = None,
    fail_under: space.FailUnder = None,
    fail_on: space.FailOnOption = None,
    force: options.Force = False,
    json: options.Json = False,
    config: options.ConfigFile = None,
) -> None:
    """Merge the partial states of a diagnosis: what pmrl diagnose would say of all their instances at once.

    Every instance must be in one state; the states must have been made with the same options.
    """
    gates = space.parse_gates(fail_under)
    if output is not None:
        diagnose.check_partial(output, fail_under=fail_under, fail_on=fail_on, force=force)
        if output.resolve() in {path.resolve() for path in states}:
            what = "output is an input"
            raise UsageError(
                what, at=Place(str(output)), found="one of the states", expected="a new path", next_step="Choose one."
            )
    merged = _read(states[0])
    for path in states[1:]:
        try:
            merged.merge(_read(path))
        except PmrlError as error:
            if error.at is None:
                raise type(error)(
                    error.what,
                    at=Place(str(path)),
                    found=error.found,
                    expected=error.expected,
                    next_step=error.next_step,
                ) from None
            raise
    if output is not None:
        diagnose.write(merged, output, as_json=json)
        return
    from pmrl_cli.diagnosis import diagnose_state

    result = diagnose_state(merged).as_dict()
    instances = space.count_text(merged.instances, "instance")
    result["inputs"] |= {"scope": f"{instances} of {space.count_text(len(states), 'state')}", "model": None}
    diagnose.conclude(result, gates, fail_on, as_json=json)


def _read(path: Path) -> State:
    """Read a state.

    Raises: DataError or StateError if it is none.
    """
    from pmrl_cli.diagnosis import Header, State
    from pmrl_cli.files.states import read_state

    header, arrays = read_state(path)
    try:
        return State.from_arrays(Header.from_dict(header), arrays)
    except (ValueError, TypeError) as error:
        what = "not a state"
        raise DataError(
            what,
            at=Place(str(path)),
            found=str(error)[:120],
            expected="what pmrl diagnose --partial writes",
            next_step="Make it again.",
        ) from None
