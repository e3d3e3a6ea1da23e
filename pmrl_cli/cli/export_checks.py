"""What ``pmrl export`` refuses before any work: formats, layouts and outputs that do not go together."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from pmrl_cli.errors import UsageError
from pmrl_cli.files.artifacts.writers import REGISTRY

__all__ = ["STDOUT", "check_alone", "check_impute", "check_output", "check_stream", "format_named", "layout_named"]

STDOUT = "-"


def format_named(name: str | None, *, streaming: bool) -> str:
    """Return the name of the format to write.

    Raises: UsageError for an unknown one.
    """
    if name is None:
        return "arrow" if streaming else "parquet"
    if name not in REGISTRY:
        raise UsageError(
            what="unknown format",
            found=f"--format {name}",
            expected=f"one of {', '.join(REGISTRY)}",
            next_step=f"Type --format {next(iter(REGISTRY))}.",
        )
    if not REGISTRY[name].installed:
        raise UsageError(
            what=f"--format {name} needs more than is installed",
            found=f"no {REGISTRY[name].library}",
            expected=f"the extra {REGISTRY[name].library!r}",
            next_step=f"Install it with: pip install 'pmrl-cli[{REGISTRY[name].library}]'.",
        )
    return name


def layout_named(asked: str | None, format: str) -> str:
    """Return how the tables lie.

    Raises: UsageError for a layout that the format does not have.
    """
    known = REGISTRY[format].layouts
    if asked is not None and asked not in known:
        raise UsageError(
            what="layout that the format does not have",
            found=f"--layout {asked} with --format {format}",
            expected=f"--layout {' or '.join(known)}",
            next_step="Leave --layout out, or use --format parquet.",
        )
    return asked or known[0]


def check_stream(format: str, *, json: bool) -> None:
    """Refuse what cannot be written to standard output."""
    what = "cannot stream"
    if not REGISTRY[format].streams:
        raise UsageError(
            what,
            found=f"--format {format} with -o -",
            expected=" or ".join(f"--format {name}" for name, writer in REGISTRY.items() if writer.streams),
            next_step="A format of several files, or one that is written back and forth, does not fit a pipe: name a "
            "folder with -o.",
        )
    if json:
        raise UsageError(
            what,
            found="--json with -o -",
            expected="one of them, for both write to standard output",
            next_step="Leave --json out.",
        )
    if sys.stdout.isatty():
        raise UsageError(
            what,
            found="a terminal as standard output",
            expected="a pipe or a file",
            next_step="Add | COMMAND or > FILE, or name a folder with -o.",
        )


def _check_together(format: str, layout: str, *, streaming: bool, shard: str | None) -> None:
    """Refuse what several processes cannot write into one export."""
    given = "-o -" if streaming else f"--shard {shard}" if shard else ""
    if not REGISTRY[format].joint:
        given = f"--format {format}"
    elif layout == "wide":
        given = "--layout wide"
    if given:
        raise UsageError(
            what="several processes write one export",
            found=f"{given} and a launcher",
            expected="a folder of Parquet, whose part files they share",
            next_step="Leave the launcher out, or give each of your own jobs a --shard I/N.",
        )


def check_impute(others: Mapping[str, object]) -> None:
    """Refuse options that predicted features do not go with."""
    _refuse(
        "--impute", others, "predictions are exported by themselves", "vectors as they are, in a folder or a stream"
    )


def check_alone(others: Mapping[str, object]) -> None:
    """Refuse options of a folder beside --into."""
    _refuse("--into", others, "--into with another output", "--into alone: the file has a form of its own")


def _refuse(option: str, others: Mapping[str, object], what: str, expected: str) -> None:
    given = [name for name, value in others.items() if value is not None]
    if given:
        found = f"{option} with {', '.join(given)}"
        raise UsageError(what=what, found=found, expected=expected, next_step="Leave either out.")


def check_output(
    output: str | None, file_format: str, layout: str, shard: str | None, *, json: bool, force: bool
) -> Path:
    """Return the folder to write, or ``-``, once it is clear that it can be written so.

    Raises: UsageError if it cannot.
    """
    from pmrl_cli.files.artifacts.export import KIND
    from pmrl_cli.files.durable.outputs import check_replaceable
    from pmrl_cli.process_group import launched_size

    if output is None:
        raise UsageError(
            what="no output",
            found="neither -o nor --into",
            expected="a folder, - for a stream, or a file of AnnData or MuData",
            next_step="Name a folder with -o.",
        )
    streaming = output == STDOUT
    if streaming:
        check_stream(file_format, json=json)
    if launched_size() > 1:
        _check_together(file_format, layout, streaming=streaming, shard=shard)
    if not streaming:
        check_replaceable(Path(output), kind=KIND, force=force)
    return Path(output)
