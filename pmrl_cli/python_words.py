"""Errors in the words of Python: what the command line calls ``--batch-size 8`` is ``batch_size=8`` to a caller."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import ParamSpec, TypeVar

from pmrl_cli.errors import PmrlError

__all__ = ["command_line", "python_words", "translated"]

_COMMAND_LINE = ContextVar("command_line", default=False)

_RENAMED = {"set": "objective_settings", "term": "terms", "labels": "columns", "from": "source", "to": "target"}

_OPTION = re.compile(
    r"--(?P<named>objective|protect|device|adapter) "
    r"(?!(?:out|away|to|and|or|for|with|beside)\b)(?P<word>[a-z][a-z0-9-]*)"
    r"|--(?P<name>[a-z][a-z-]*[a-z])(?: (?P<number>[0-9](?:[0-9a-z.-]*[0-9a-z])?)| [A-Z]+\b)?"
)
"""An option, what it is set to, or the name that stands for that."""

P = ParamSpec("P")
R = TypeVar("R")


@contextmanager
def command_line() -> Iterator[None]:
    """While it is open, errors keep the words of the command line."""
    token = _COMMAND_LINE.set(True)
    try:
        yield
    finally:
        _COMMAND_LINE.reset(token)


def translated(text: str) -> str:
    """Return a message with its options written as keyword arguments."""

    def keyword(match: re.Match[str]) -> str:
        if match["named"]:
            return f"{match['named']}={match['word']!r}"
        name = _RENAMED.get(match["name"], match["name"].replace("-", "_"))
        return f"{name}={match['number']}" if match["number"] else name

    return _OPTION.sub(keyword, text.replace(" and add --restart", "").replace(" --restart", ""))


def python_words(function: Callable[P, R]) -> Callable[P, R]:
    """Return a function whose errors speak of keyword arguments, but where a command calls it."""

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except PmrlError as error:
            if not _COMMAND_LINE.get():
                error.args = (translated(str(error)),)
            raise

    return called
