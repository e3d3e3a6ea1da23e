"""``pmrl ingest``."""

from __future__ import annotations

__all__ = ["command"]


def command() -> None:
    """Placeholder until the room is built."""
    raise NotImplementedError
