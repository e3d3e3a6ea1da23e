"""Dataset: k modalities joined by instance id, readable by block whatever lies underneath.

Rows of every modality stand in instance order, so row i is instance i everywhere; a modality an instance
lacks holds a row of zeros there and False in ``present``. The arrays are in memory or memory-mapped: a reader
asks for rows and gets float32, and nothing downstream knows which of the two it was.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pmrl_cli.data.ids import hash_ids

__all__ = ["BLOCK_BYTES", "OWN_AXES", "Dataset", "EmbeddedBlock", "Features", "FloatArray", "Imputation", "Rows"]

FloatArray = npt.NDArray[np.float32]
Rows = slice | npt.NDArray[np.int64]

BLOCK_BYTES = 16 * 2**20
"""Bytes of float32 one block of all modalities may take: large enough to stream, small enough for cache."""


OWN_AXES = (
    "Put the rows of all files into one (anndata.concat does), and read that with --components: its rows have axes "
    "in common."
)
"""What to do about sparse matrices that were each reduced along their own axes."""


@dataclass(frozen=True)
class Features:
    """The vectors of one modality.

    Args:
        name: the modality.
        array: (n, d_m) float32 or float16, or uint16 holding bfloat16 bits; in memory or memory-mapped, C order.
        bfloat16: True if ``array`` holds bfloat16 bits.
        digest: SHA-256 (hex) of the npy file that holds the rows as stored, in instance order (a store's own file);
            equal data has equal digests whatever file format it came from. Empty where none is needed (arrays
            passed in Python).
        rows: (n,) row of the array for each instance, where several instances share one; None if row i is that of
            instance i.
        axes: which matrix its columns are principal axes of, where those were found in the data itself; empty for
            columns that mean the same in every data set.
    """

    name: str
    array: npt.NDArray[np.generic]
    bfloat16: bool = False
    digest: str = ""
    rows: npt.NDArray[np.int64] | None = None
    axes: str = ""

    @property
    def dim(self) -> int:
        """Columns d_m."""
        return int(self.array.shape[1])

    def read(self, rows: Rows) -> FloatArray:
        """Return the rows asked for as a new (B, d_m) float32 array, C order."""
        block = self.stored(rows)
        if self.bfloat16:
            return (block.astype(np.uint32) << 16).view(np.float32)
        copied = None if isinstance(rows, np.ndarray) else True  # rows by number are a copy already
        return np.array(block, dtype=np.float32, order="C", copy=copied)

    def stored(self, rows: Rows) -> npt.NDArray[np.generic]:
        """Return the rows asked for as they are stored: a view of a slice, else a copy."""
        return self.array[rows if self.rows is None else self.rows[rows]]

    def part(self, rows: slice) -> Features:
        """Return the vectors of some consecutive instances; nothing is read or copied."""
        if self.rows is not None:
            return replace(self, rows=self.rows[rows], digest="")
        return replace(self, array=self.array[rows], digest="")

    def release(self) -> None:
        """Let go of the memory that reading a memory map has taken; its pages are read again when asked for.

        A pass over a map larger than memory would else hold all of it in the end. Not for a private map, whose
        changes live in that memory alone.
        """
        if isinstance(self.array, np.memmap) and self.array.mode != "c":
            pages: object = self.array._mmap  # type: ignore[attr-defined]
            if isinstance(pages, mmap.mmap):
                pages.madvise(mmap.MADV_DONTNEED)


@dataclass(frozen=True)
class Dataset:
    """k modalities of n instances.

    Args:
        ids: (n,) Arrow large_string, unique.
        modalities: the k modalities, ordered by the bytes of their names.
        present: (n, k) bool; False where an instance lacks a modality (its row is zeros).
        columns: side columns (labels, groups, a split) by name, each (n,) Arrow, null where the side file
            has no row for an instance.
        named_by_row: True if no file had ids and instances are known by their row number.
        notes: what reading decided or dropped, one sentence each; commands show them.
        hashes: (n, k) uint64 of the vectors as they were read, 0 where absent (``pmrl_cli.data.repeats``); those of
            a data set that was embedded are of what it was embedded from. None: not taken yet.
        named: (n,) the ids as the files have them, where instances of one id got ids of their own (``id#0``); else
            None.
    """

    ids: pa.LargeStringArray
    modalities: tuple[Features, ...]
    present: npt.NDArray[np.bool_]
    columns: Mapping[str, pa.Array] = field(default_factory=dict)
    named_by_row: bool = False
    notes: tuple[str, ...] = ()
    hashes: npt.NDArray[np.uint64] | None = None
    named: pa.LargeStringArray | None = None
    _id_hashes: dict[int, npt.NDArray[np.uint64]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the modalities, in order."""
        return tuple(features.name for features in self.modalities)

    @property
    def dims(self) -> tuple[int, ...]:
        """Columns of each modality, in order."""
        return tuple(features.dim for features in self.modalities)

    def id_hashes(self, seed: int) -> npt.NDArray[np.uint64]:
        """Return (n,) what ``hash_ids`` makes of the ids under a seed; computed once."""
        if seed not in self._id_hashes:
            self._id_hashes[seed] = hash_ids(self.ids, seed)
        return self._id_hashes[seed]

    def hashes_to_know(self, rows: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint64]:
        """Return, ascending, hashes of the ids of some instances, and of these as the files have them."""
        own = self.id_hashes(0)[rows]
        return np.unique(own if self.named is None else [*own, *hash_ids(self.named.filter(pa.array(rows)), 0)])

    def known_among(self, hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        """Return (n,) which instances are among those of some ``hashes_to_know``, of whatever data set."""
        known = np.isin(self.id_hashes(0), hashes)
        return known if self.named is None else known | np.isin(hash_ids(self.named, 0), hashes)

    def smallest_by_hash(self, rows: npt.NDArray[np.int64], limit: int, seed: int) -> npt.NDArray[np.int64]:
        """Return, ascending, the ``limit`` of ``rows`` whose ids hash smallest: uniform, whatever their order.

        Args:
            rows: (n,) row numbers, ascending.
            limit: how many to keep at most.
            seed: of the hash.
        """
        if len(rows) <= limit:
            return rows
        return np.sort(rows[np.argsort(self.id_hashes(seed)[rows], kind="stable")[:limit]])

    def without(self, absent: npt.NDArray[np.bool_]) -> Dataset:
        """Return the data set with the vectors of an (n, k) mask taken for missing."""
        masked = replace(self, present=self.present & ~absent)
        masked._id_hashes.update(self._id_hashes)
        return masked

    def part(self, rows: slice) -> Dataset:
        """Return some consecutive instances as a data set; nothing is read or copied."""
        return Dataset(
            self.ids[rows],
            tuple(features.part(rows) for features in self.modalities),
            self.present[rows],
            {name: column[rows] for name, column in self.columns.items()},
            self.named_by_row,
            self.notes,
            None if self.hashes is None else self.hashes[rows],
            None if self.named is None else self.named[rows],
        )

    def block_rows(self) -> int:
        """Rows whose float32 vectors of all modalities fill ``BLOCK_BYTES`` (at least 1)."""
        return max(1, BLOCK_BYTES // (4 * max(1, sum(self.dims))))

    def blocks(self, rows: Rows | None = None) -> Iterator[Rows]:
        """Yield the rows of the dataset (or those of ``rows``, which must ascend) block by block.

        A slice is cut where the whole data set is: its first and last block may be part of a block of that. The
        pages of a memory map that a block has read are released before the next block.
        """
        for block in self._cut(slice(0, len(self)) if rows is None else rows):
            yield block
            for features in self.modalities:
                features.release()

    def _cut(self, rows: Rows) -> Iterator[Rows]:
        step = self.block_rows()
        if isinstance(rows, slice):
            start = rows.start
            while start < rows.stop:
                stop = min(start - start % step + step, rows.stop)
                yield slice(start, stop)
                start = stop
        else:
            for start in range(0, len(rows), step):
                yield rows[start : start + step]

    def block_of(self, rows: slice) -> slice:
        """Return the block of the whole data set that these rows, a block of a slice, are part of."""
        start = rows.start - rows.start % self.block_rows()
        return slice(start, min(start + self.block_rows(), len(self)))

    def read_ahead(self, rows: Rows | None = None) -> Iterator[tuple[Rows, list[FloatArray]]]:
        """Yield the rows of each of ``blocks`` and the features of all modalities there, read by a thread.

        The next block is read while the last one is used: two are in memory. One block alone is read here: a thread
        takes longer to start than a few rows to read.
        """
        blocks = ((block, [features.read(block) for features in self.modalities]) for block in self.blocks(rows))
        if (
            len(range(len(self))[rows] if isinstance(rows, slice) else self if rows is None else rows)
            <= self.block_rows()
        ):
            yield from blocks
            return
        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(next, blocks, None)
            while (block := coming.result()) is not None:
                coming = reader.submit(next, blocks, None)
                yield block


@dataclass(frozen=True)
class Imputation:
    """What was predicted of the modalities that instances lack.

    Args:
        missing: (B, k) bool, what was.
        features: for each modality (B, d_m), what was given or else predicted.
        deviations: for each modality (B, d_m) standard deviations of what was predicted, else 0.
    """

    missing: npt.NDArray[np.bool_]
    features: Sequence[FloatArray]
    deviations: Sequence[FloatArray]

    def rows(self, kept: npt.NDArray[np.bool_]) -> Imputation:
        """Return the annotations of some instances."""
        features, deviations = ([part[kept] for part in parts] for parts in (self.features, self.deviations))
        return Imputation(self.missing[kept], features, deviations)


@dataclass(frozen=True)
class EmbeddedBlock:
    """The aligned embeddings of some consecutive instances.

    Args:
        ids: (B,) Arrow large_string.
        embeddings: (B, k, d) float32, unit length where present, zero elsewhere.
        present: (B, k) bool.
        fused: (B, d) float32, unit length where any modality is present, else zero.
        extra: further outputs of the model by name: (B, k, d') for each modality, or (B, d') for each instance.
        codes: (B, k) number of each embedding's code, anything where absent; None without a codebook.
        imputed: what of it was predicted; None where nothing was asked to be.
    """

    ids: pa.LargeStringArray
    embeddings: FloatArray
    present: npt.NDArray[np.bool_]
    fused: FloatArray
    extra: Mapping[str, FloatArray] = field(default_factory=dict)
    codes: npt.NDArray[np.int32] | None = None
    imputed: Imputation | None = None
