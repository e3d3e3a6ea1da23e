"""Partial states of a diagnosis, as ``pmrl diagnose --partial`` and ``pmrl merge`` read and write them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from pmrl_cli.cli import space
from pmrl_cli.errors import DataError, Place, UsageError

if TYPE_CHECKING:
    from pmrl_cli.diagnosis import State

__all__ = ["check", "read", "write"]


def check(path: Path, whole: Mapping[str, object], *, force: bool) -> None:
    """Refuse to write a state over something else, or beside what needs a whole diagnosis.

    Args:
        path: of the state.
        whole: options that do, by name, with their values.
        force: replace any file.
    """
    given = [name for name, value in whole.items() if value]
    if given:
        raise UsageError(
            what="a state beside what needs a diagnosis",
            found=", ".join(given),
            expected="none of them: a state has no verdict yet",
            next_step="Run pmrl merge, or leave the state out.",
        )
    from pmrl_cli.files.artifacts.states import STATE_MARKER
    from pmrl_cli.files.durable.outputs import check_file

    check_file(path, STATE_MARKER, force=force)


def write(state: State, path: Path, *, as_json: bool) -> None:
    """Write a state and print its path."""
    from pmrl_cli.files.artifacts.states import STATE, write_state

    write_state(path, state.header.as_dict(), state.arrays())
    if as_json:
        space.print_json({"schema": f"{STATE}/1", "state": str(path), "instances": state.instances})
    else:
        typer.echo(str(path))


def read(path: Path) -> State:
    """Read a state.

    Raises: DataError or StateError if it is none.
    """
    from pmrl_cli.diagnosis import Header, State
    from pmrl_cli.files.artifacts.states import read_state

    header, arrays = read_state(path)
    try:
        return State.from_arrays(Header.from_dict(header), arrays)
    except (ValueError, TypeError) as error:
        raise DataError(
            what="not a state",
            at=Place(str(path)),
            found=str(error)[:120],
            expected="what pmrl diagnose --partial writes",
            next_step="Make it again.",
        ) from None
