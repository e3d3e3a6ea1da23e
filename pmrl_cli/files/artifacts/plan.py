"""What an export will hold, known before its first block."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pmrl_cli.files.artifacts.shares import FUSED, ROWS_PER_FILE, Share
from pmrl_cli.files.formats.vector_tables import Parts

__all__ = ["ExportPlan"]


@dataclass(frozen=True)
class ExportPlan:
    """What is to be written.

    Args:
        names: the k modalities, in the order of the blocks.
        counts: instances of the blocks that have each modality.
        rows: instances of the blocks that have any.
        dim: columns d of an embedding.
        format: a name in ``writers.REGISTRY``.
        dtype: ``float32`` or ``float16``.
        rows_per_file: rows of one Parquet file, at least 1.
        share: the part of a larger export that is written here; None for the whole of one.
    """

    names: tuple[str, ...]
    counts: tuple[int, ...]
    rows: int
    dim: int
    format: str = "parquet"
    dtype: str = "float32"
    rows_per_file: int = ROWS_PER_FILE
    share: Share | None = None

    @property
    def number(self) -> np.dtype[np.floating]:
        """The type of an element."""
        return np.dtype(self.dtype)

    def tables(self) -> dict[str, Parts]:
        """What to write of each table by name: the modalities and the fused one."""
        if self.share is not None:
            return dict(self.share.parts)
        parts = {}
        for name, rows in zip([*self.names, FUSED], [*self.counts, self.rows], strict=True):
            files = max(1, -(-rows // self.rows_per_file))
            parts[name] = Parts(0, files, files, 0, rows, rows)
        return parts

    @property
    def suffix(self) -> str:
        """What the names of files end in, so that those of several shards can lie side by side."""
        return "" if self.share is None else self.share.suffix
