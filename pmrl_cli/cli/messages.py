"""Messages on standard error: one line each in a log, broken at words on a terminal."""

from __future__ import annotations

import os
import sys
import textwrap

import typer

from pmrl_cli.cli.table import WIDTH

__all__ = ["broken_at_words", "say"]

_LEAST = 40


def say(text: str) -> None:
    """Write one message."""
    typer.echo(broken_at_words(text), err=True)


def broken_at_words(text: str) -> str:
    """Return a message as it is or, where standard error is a terminal, in lines of its width.

    Words are never broken, nor paths and options at their hyphens: what is to be copied stays whole.
    """
    if not sys.stderr.isatty():
        return text
    asked = os.environ.get("COLUMNS", "")  # as other tools take it
    width = int(asked) if asked.isdecimal() else os.get_terminal_size(sys.stderr.fileno()).columns
    return textwrap.fill(
        text, max(_LEAST, width or WIDTH), subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
