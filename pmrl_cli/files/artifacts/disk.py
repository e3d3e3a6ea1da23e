"""What safetensors says of a disk, as an error of pmrl."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from pmrl_cli.errors import Place, ResourceError

__all__ = ["disk_errors"]


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Raise ResourceError where safetensors cannot write, as on a full disk."""
    try:
        yield
    except SafetensorError as error:
        raise ResourceError(
            what="file cannot be written",
            at=Place(str(path)),
            found=str(error).splitlines()[0],
            expected="room on the disk",
            next_step="Free some, or choose another path.",
        ) from None
