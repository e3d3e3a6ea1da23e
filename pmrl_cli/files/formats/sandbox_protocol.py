"""Messages between a command and its reading process: one line of JSON each, errors included.

JSON and not pickle, because the other side has parsed files that are not trustworthy. Arrays are not sent: they lie
in memory that both sides map (see ``sandbox_client``).
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import astuple
from typing import Any

from pmrl_cli import errors
from pmrl_cli.errors import Place, PmrlError

__all__ = ["NEXT", "SLOTS", "SLOT_BYTES", "Channel", "error_from", "error_message"]

SLOT_BYTES = 96 * 2**20
"""Shared memory of one block: a band of HDF5 chunks (64 MiB) and a block (8 MiB) fit. Only what is used is taken."""

SLOTS = 3
"""One block is filled, one is used, and one may still be hashed."""

NEXT = {"do": "next"}
"""Asks for the item after the one in use."""


class Channel:
    """Messages over one end of a socket pair.

    Args:
        end: the socket; its timeout is that of ``receive``.
    """

    def __init__(self, end: socket.socket) -> None:
        self._file = end.makefile("rwb")

    def send(self, message: Mapping[str, object]) -> None:
        """Send a message.

        Raises: OSError if the other end is closed.
        """
        self._file.write(json.dumps(message).encode("ascii") + b"\n")
        self._file.flush()

    def receive(self) -> dict[str, Any] | None:
        """Return the next message, None if the other end is gone.

        Raises: TimeoutError.
        """
        try:
            line = self._file.readline()
        except ConnectionError:
            return None
        message: dict[str, Any] | None = json.loads(line) if line.endswith(b"\n") else None
        return message


def error_message(error: PmrlError) -> dict[str, object]:
    """Return an error as a message."""
    return {
        "error": type(error).__name__,
        "what": error.what,
        "found": error.found,
        "expected": error.expected,
        "next_step": error.next_step,
        "at": None if error.at is None else astuple(error.at),
        "others": [astuple(place) for place in error.others],
        "total": error.total,
    }


def error_from(message: Mapping[str, Any]) -> PmrlError:
    """Return the error that ``error_message`` took, with the trace (if one was sent) as a note."""
    family: type[PmrlError] = getattr(errors, message["error"])
    error = family(
        message["what"],
        found=message["found"],
        expected=message["expected"],
        next_step=message["next_step"],
        at=None if message["at"] is None else Place(*message["at"]),
        others=[Place(*place) for place in message["others"]],
        total=message["total"],
    )
    if "trace" in message:
        error.add_note(message["trace"])
    return error
