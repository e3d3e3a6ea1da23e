"""The config file of ``--config``: options of one command, or of a pipeline in a table for each command."""

from __future__ import annotations

import errno
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from pmrl_cli.errors import Place, UsageError

__all__ = ["load_config"]

_NEVER = {"files", "config", "help"}
"""What a config file cannot set."""


def load_config(context: typer.Context, path: Path | None) -> Path | None:
    """Take the options of the command from a TOML file as its defaults.

    A table that is called as a command, such as ``[fit]``, is for that command alone and wins over the keys at the
    top. In a file with such tables those may be of any of these commands; in one without, all are of this one.

    Raises: UsageError for a file that cannot be read, is no TOML or has a key that is no option.
    """
    if path is None:
        return None
    values = _read(path)
    parent = context.parent
    commands: Mapping[str, Any] = getattr(parent.command, "commands", {}) if parent is not None else {}
    tables = {name: values.pop(name) for name in list(values) if name in commands and isinstance(values[name], dict)}
    own = _options(context.command)
    common = own.union(*(_options(commands[name]) for name in tables))
    _check(path, values, common, context)
    for name, table in tables.items():
        _check(path, table, _options(commands[name]), context, within=name)
    chosen = {key: value for key, value in values.items() if key in own} | tables.get(context.command.name or "", {})
    repeatable = {p.name for p in context.command.params if getattr(p, "multiple", False)}
    for key in repeatable & set(chosen):
        if isinstance(chosen[key], str):  # one value needs no list
            chosen[key] = [chosen[key]]
    context.default_map = {**(context.default_map or {}), **chosen}
    return path


def _options(command: Any) -> set[str]:  # noqa: ANN401 - a command of typer, whatever it is based on
    return {p.name for p in command.params if p.name is not None} - _NEVER


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise OSError(errno.EINVAL, "no regular file")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            what="config file cannot be read",
            at=Place(str(path)),
            found=error.strerror or "an I/O error",
            expected="a TOML file",
            next_step="Check the path after --config.",
        ) from None
    except (ValueError, RecursionError) as error:  # also of numbers too long and tables too deep to be read
        raise UsageError(
            what="config file is not TOML",
            at=Place(str(path)),
            found=str(error)[:160],
            expected="lines like seed = 0",
            next_step="Fix that line.",
        ) from None


def _check(
    path: Path, values: Mapping[str, object], known: set[str], context: typer.Context, within: str | None = None
) -> None:
    unknown = sorted(set(values) - known)
    if unknown:
        raise UsageError(
            what="unknown config key" if within is None else f"unknown config key in [{within}]",
            at=Place(str(path)),
            found=", ".join(repr(key) for key in unknown),
            expected=f"one of {', '.join(sorted(known))}",
            next_step=f"See pmrl {within or context.command.name} --help.",
        )
