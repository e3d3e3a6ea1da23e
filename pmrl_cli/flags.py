"""Command-line options of dataclass fields: an option is declared once, on the field that holds its value.

``cli.options.flattened`` gives a command one parameter for each such field; in Python the dataclass is used as it is.
To add an option to every command that takes a dataclass, add one field::

    pool: Literal["mean", "max", "first"] | None = flag(None, "--pool", help="How a sequence becomes one vector.")
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["FLAG", "Flag", "flag", "parse_bytes", "parse_seconds"]

FLAG = "flag"
"""Key of a field's metadata under which its ``Flag`` stands."""


@dataclass(frozen=True)
class Flag:
    """How a field is typed on the command line.

    Args:
        names: ``--name``, perhaps with a short form; ``--yes/--no`` for a switch with two sides.
        help: one sentence.
        metavar: what its value is called in the help, None for the name of its type.
        min: least number allowed.
        panel: heading of the help that it stands under, None for the ``PANEL`` of its dataclass.
        parse: makes the value of the text typed (of the texts, where the field is a tuple or a dict), or raises
            ValueError; None where the type of the field says enough.
    """

    names: tuple[str, ...]
    help: str
    metavar: str | None = None
    min: int | None = None
    parse: Callable[[Any], Any] | None = None
    panel: str | None = None


def flag(
    default: object,
    *names: str,
    help: str,
    metavar: str | None = None,
    min: int | None = None,
    parse: Callable[[Any], Any] | None = None,
    panel: str | None = None,
) -> Any:  # noqa: ANN401 - as ``dataclasses.field``, it stands for the default of any type
    """Return a dataclass field that is an option too; ``default`` is its value where it is not given."""
    metadata = {FLAG: Flag(names, help, metavar, min, parse, panel)}
    if isinstance(default, Mapping):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def parse_bytes(text: str) -> int:
    """Return bytes from ``512M``, ``8G``, ``1.5GiB`` or a plain number (powers of 1024).

    Raises: ValueError.
    """
    match = re.fullmatch(r"\s*(\d{1,15}(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?\s*", text, re.IGNORECASE)
    if match is None or float(match[1]) <= 0:
        message = f"{text!r} is not a size such as 512M or 8G"
        raise ValueError(message)
    power = ["", "k", "m", "g", "t"].index(match[2].lower())
    return int(float(match[1]) * 1024**power)


def parse_seconds(text: str) -> float:
    """Return seconds from ``90s``, ``5m``, ``1.5h`` or a plain number.

    Raises: ValueError.
    """
    match = re.fullmatch(r"\s*(\d{1,15}(?:\.\d+)?)\s*([smh]?)\s*", text, re.IGNORECASE)
    if match is None or float(match[1]) <= 0:
        message = f"{text!r} is not a time such as 90s, 5m or 2h"
        raise ValueError(message)
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2].lower()]
