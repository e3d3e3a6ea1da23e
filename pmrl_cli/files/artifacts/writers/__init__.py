"""Formats that embeddings are written in: one file each, behind one protocol and one registry.

To add one: write its file with a function ``write`` that satisfies ``Write`` (and, if it fits a pipe, ``stream``),
and add its line to ``REGISTRY``.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
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
        layouts: ``tables``, one for each modality, or ``wide``, one row for each instance; the first is the default.
        library: what it needs beyond the dependencies of pmrl; the extra of the same name brings it.
    """

    home: str
    streams: bool = False
    joint: bool = False
    layouts: tuple[str, ...] = ("tables",)
    library: str | None = None

    @property
    def module(self) -> Any:  # noqa: ANN401 - a module with ``write``, and ``stream`` if it streams
        """The module itself."""
        return import_module(self.home)

    @property
    def installed(self) -> bool:
        """Whether its library is there."""
        return self.library is None or find_spec(self.library) is not None


REGISTRY = {
    "parquet": Writer("pmrl_cli.files.artifacts.writers.parquet", joint=True, layouts=("tables", "wide")),
    "h5": Writer("pmrl_cli.files.artifacts.writers.hdf5"),
    "npy": Writer("pmrl_cli.files.artifacts.writers.npy"),
    "arrow": Writer("pmrl_cli.files.artifacts.writers.arrow", streams=True, layouts=("wide",)),
    "csv": Writer("pmrl_cli.files.artifacts.writers.csv"),
    "faiss": Writer("pmrl_cli.files.artifacts.writers.faiss", library="faiss"),
    "faiss-hnsw": Writer("pmrl_cli.files.artifacts.writers.faiss_hnsw", library="faiss"),
    "lance": Writer("pmrl_cli.files.artifacts.writers.lance", layouts=("wide",), library="lance"),
}
