"""A small space with missing modalities, exported, and what its tables must hold."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from pmrl_cli.data.dataset import EmbeddedBlock
from pmrl_cli.files.artifacts.export import write_export
from pmrl_cli.files.artifacts.plan import ExportPlan

NAMES = ("audio", "image", "text")


DIM = 4


class Space:
    """n embedded instances, some lacking modalities, as blocks and as the arrays to compare with."""

    def __init__(self, n: int, seed: int = 0, ids: list[str] | None = None):
        generator = np.random.default_rng(seed)
        self.ids = np.array(ids if ids is not None else [f"clip-{i}é" for i in range(n)], dtype=object)
        self.present = generator.random((n, len(NAMES))) < 0.7
        self.embeddings = generator.normal(size=(n, len(NAMES), DIM)).astype(np.float32)
        self.embeddings[~self.present] = 0
        self.fused = generator.normal(size=(n, DIM)).astype(np.float32)
        self.kept = self.present.any(axis=1)

    def blocks(self, cuts: tuple[int, ...] = ()) -> Iterator[EmbeddedBlock]:
        edges = [0, *sorted(cuts), len(self.ids)]
        for start, stop in pairwise(edges):
            part = slice(start, stop)
            ids = pa.array(self.ids[part].tolist(), pa.large_string())
            yield EmbeddedBlock(ids, self.embeddings[part], self.present[part], self.fused[part])

    def part(self, rows: slice) -> Space:
        """Those instances alone."""
        part = copy(self)
        part.ids, part.present, part.kept = self.ids[rows], self.present[rows], self.kept[rows]
        part.embeddings, part.fused = self.embeddings[rows], self.fused[rows]
        return part

    def export(self, out: Path, cuts: tuple[int, ...] = (), **options) -> dict:
        outside = {key: options.pop(key) for key in ("force", "provenance") if key in options}
        outside.setdefault("provenance", {"inputs": {}})
        return write_export(self.blocks(cuts), out, self.plan(**options), **outside)

    def plan(self, **options) -> ExportPlan:
        known = {
            "names": NAMES,
            "counts": tuple(self.present.sum(axis=0).tolist()),
            "rows": int(self.kept.sum()),
            "dim": DIM,
        }
        return ExportPlan(**(known | options))

    def tables(self) -> dict[str, tuple[list[str], np.ndarray]]:
        """What every table must hold, by definition."""
        tables = {
            name: (self.ids[self.present[:, m]].tolist(), self.embeddings[self.present[:, m], m])
            for m, name in enumerate(NAMES)
        }
        return {**tables, "fused": (self.ids[self.kept].tolist(), self.fused[self.kept])}


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def vectors_of(column: pa.ChunkedArray) -> np.ndarray:
    return np.array(column.to_pylist()).reshape(-1, DIM)


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
