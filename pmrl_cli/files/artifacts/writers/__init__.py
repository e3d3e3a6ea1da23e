"""Formats that embeddings are written in: one file each, behind one protocol and one registry.

To add one: write its file with a function ``write`` that satisfies ``Write`` (and, if it fits a pipe, ``stream``),
and add its line to ``REGISTRY``.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from pmrl_cli.data.dataset import EmbeddedBlock
    from pmrl_cli.files.artifacts.plan import ExportPlan

__all__ = ["REGISTRY", "Write", "Writer", "Written"]

Written = tuple[dict[str, object], dict[Path, str]]
"""What a format adds to the manifest, and the SHA-256 (hex) of each file it wrote."""


class Write(Protocol):
    """Writes all blocks of an export into a folder."""

    def __call__(self, folder: Path, blocks: Iterator[EmbeddedBlock], plan: ExportPlan) -> Written:
        """Write the blocks.

        Args:
            folder: exists; nothing else in it is read.
            blocks: instances with a modality or more, in order.
            plan: what they hold, known before the first.

        Raises: ValueError if the blocks hold other numbers of instances than announced.
        """
        ...


class Writer(NamedTuple):
    """One format.

    Args:
        home: module with its ``write``, imported when it is used.
        streams: it has a ``stream(sink, blocks, plan)`` too, which fits a pipe.
        joint: several processes may fill one folder, each with parts of its own.
    """

    home: str
    streams: bool = False
    joint: bool = False

    @property
    def module(self) -> Any:  # noqa: ANN401 - a module with ``write``, and ``stream`` if it streams
        """The module itself."""
        return import_module(self.home)


REGISTRY = {
    "parquet": Writer("pmrl_cli.files.artifacts.writers.parquet", joint=True),
    "h5": Writer("pmrl_cli.files.artifacts.writers.hdf5"),
    "npy": Writer("pmrl_cli.files.artifacts.writers.npy"),
    "arrow": Writer("pmrl_cli.files.artifacts.writers.arrow", streams=True),
}
