"""What an export will hold, known before its first block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pmrl_cli.data.dataset import EmbeddedBlock, FloatArray, Imputation
from pmrl_cli.files.artifacts.compressed import Compressed
from pmrl_cli.files.artifacts.writer_parts import FUSED, ROWS_PER_FILE, WriterPart
from pmrl_cli.files.formats.vector_tables import Parts

__all__ = ["Also", "ExportPlan", "Output", "has"]


class Also(NamedTuple):
    """A further output of the model that is exported beside its embeddings.

    Args:
        name: among ``EmbeddedBlock.extra``.
        dim: its columns.
        each: whether every modality has one, then called ``MODALITY.NAME``; else every instance has one.
    """

    name: str
    dim: int
    each: bool


class Output(NamedTuple):
    """One table of an export.

    Args:
        name: of its file or column.
        source: the modality that an instance must have to be in it; ``FUSED`` for any.
        dim: columns of its vectors.
        vectors: from a block to its (B, dim) vectors.
        codes: from a block to (B,) whole numbers that stand beside the vectors; None without.
        number: what those are called: ``code``, or ``imputed`` where they say (1) that a vector was predicted.
    """

    name: str
    source: str
    dim: int
    vectors: Callable[[EmbeddedBlock], FloatArray]
    codes: Callable[[EmbeddedBlock], npt.NDArray[np.int32]] | None = None
    number: str = "code"

    @property
    def numbers(self) -> str | None:
        """The name of the whole numbers beside the vectors; None without."""
        return None if self.codes is None else self.number

    @property
    def besides(self) -> dict[str, str]:
        """What a manifest says of a table that is not of the space: the modality that it belongs to."""
        return {} if self.name == self.source else {"of": self.source}


@dataclass(frozen=True)
class ExportPlan:
    """What is to be written.

    Args:
        names: the k modalities, in the order of the blocks.
        counts: instances of the blocks that have each modality.
        rows: instances of the blocks that have any.
        dim: columns d of an embedding.
        format: a name in ``writers.REGISTRY``.
        layout: ``tables`` or ``wide``, for a format that knows both.
        dtype: ``float32`` or ``float16``.
        rows_per_file: rows of one Parquet file, at least 1.
        part: the part of a larger export that is written here; None for the whole of one.
        also: further outputs of the model.
        compressed: codes and channels, where vectors were made smaller.
        widths: columns of the features of each modality, where what is missing was predicted and they are written
            too, as ``MODALITY.features``, and their standard deviation as ``MODALITY.deviation``.
    """

    names: tuple[str, ...]
    counts: tuple[int, ...]
    rows: int
    dim: int
    format: str = "parquet"
    layout: str = "tables"
    dtype: str = "float32"
    rows_per_file: int = ROWS_PER_FILE
    part: WriterPart | None = None
    also: tuple[Also, ...] = ()
    compressed: Compressed | None = None
    widths: tuple[int, ...] = ()

    def outputs(self) -> list[Output]:
        """Return the tables: of the modalities, what each has besides, the fused vectors, and what instances have."""
        found = []
        for m, name in enumerate(self.names):
            coded = self.compressed is not None and self.compressed.codebook is not None
            if self.widths:
                found.append(Output(name, name, self.dim, partial(_embedding, m), partial(_imputed, m), "imputed"))
                found.append(Output(f"{name}.features", name, self.widths[m], partial(_features, m)))
                found.append(Output(f"{name}.deviation", name, self.widths[m], partial(_deviations, m)))
                continue
            found.append(Output(name, name, self.dim, partial(_embedding, m), partial(_codes, m) if coded else None))
            found += [
                Output(f"{name}.{also.name}", name, also.dim, partial(_extra_of_modality, also.name, m))
                for also in self.also
                if also.each
            ]
        found.append(Output(FUSED, FUSED, self.dim, _fused))
        return found + [
            Output(also.name, FUSED, also.dim, partial(_extra, also.name)) for also in self.also if not also.each
        ]

    def listed(self) -> list[Output]:
        """Return the tables of the modalities and of what each has besides, which a manifest lists."""
        return [output for output in self.outputs() if output.source != FUSED]

    def rows_of(self, output: Output) -> int:
        """Return how many rows a table has."""
        return self.rows if output.source == FUSED else self.counts[self.names.index(output.source)]

    @property
    def number(self) -> np.dtype[np.floating]:
        """The type of an element."""
        return np.dtype(self.dtype)

    def tables(self) -> dict[str, Parts]:
        """What to write of each table by name."""
        parts = {}
        for output in self.outputs():
            rows = self.rows_of(output)
            files = max(1, -(-rows // self.rows_per_file))
            whole = Parts(0, files, files, 0, rows, rows)
            parts[output.name] = whole if self.part is None else self.part.parts[output.source]
        return parts

    @property
    def suffix(self) -> str:
        """What the names of files end in, so that those of several shards can lie side by side."""
        return "" if self.part is None else self.part.suffix


def has(plan: ExportPlan, output: Output, block: EmbeddedBlock) -> npt.NDArray[np.bool_]:
    """Return (B,) bool: which instances of a block are in a table."""
    if output.source == FUSED:
        return np.ones(len(block.ids), dtype=np.bool_)
    present: npt.NDArray[np.bool_] = block.present[:, plan.names.index(output.source)]
    return present


def _embedding(m: int, block: EmbeddedBlock) -> FloatArray:
    return block.embeddings[:, m]


def _codes(m: int, block: EmbeddedBlock) -> npt.NDArray[np.int32]:
    if block.codes is None:
        message = "a block without the codes that were announced"
        raise ValueError(message)
    return block.codes[:, m]


def _imputation(block: EmbeddedBlock) -> Imputation:
    if block.imputed is None:
        message = "a block without the predictions that were announced"
        raise ValueError(message)
    return block.imputed


def _imputed(m: int, block: EmbeddedBlock) -> npt.NDArray[np.int32]:
    return _imputation(block).missing[:, m].astype(np.int32)


def _features(m: int, block: EmbeddedBlock) -> FloatArray:
    return _imputation(block).features[m]


def _deviations(m: int, block: EmbeddedBlock) -> FloatArray:
    return _imputation(block).deviations[m]


def _extra_of_modality(name: str, m: int, block: EmbeddedBlock) -> FloatArray:
    return block.extra[name][:, m]


def _fused(block: EmbeddedBlock) -> FloatArray:
    return block.fused


def _extra(name: str, block: EmbeddedBlock) -> FloatArray:
    return block.extra[name]
