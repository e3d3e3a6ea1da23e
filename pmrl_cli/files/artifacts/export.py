"""Aligned embeddings to a folder or a stream, block by block: Parquet, HDF5, a store or Arrow.

Nothing here holds more than a few thousand instances (HDF5: plus the ids), and the bytes of Parquet, HDF5 and the
store do not depend on how the instances were cut into blocks.
"""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pmrl_cli.data.dataset import EmbeddedBlock
from pmrl_cli.errors import UsageError
from pmrl_cli.files.artifacts.shares import FUSED, ROWS_PER_FILE, Share
from pmrl_cli.files.durable.atomic import MANIFEST, atomic_folder, check_replaceable
from pmrl_cli.files.durable.checksums import FORMAT_VERSION, HashedFile, sha256_of, write_sealed
from pmrl_cli.files.durable.npy import npy_header
from pmrl_cli.files.formats.store import EXPORT, IDS, STORE, digest_ids
from pmrl_cli.files.formats.vector_tables import Hdf5File, ParquetParts, Parts, VectorTable, vector_type

__all__ = [
    "FORMATS",
    "KIND",
    "open_export",
    "seal_export",
    "write_export",
    "write_files",
    "write_stream",
]

KIND = "pmrl.export"
"""What the manifest of an export calls it."""

_NAME = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,64}")
_RESERVED = frozenset({FUSED, "id", "present", MANIFEST})
"""What a modality may not be called, for a file or column of every export is called so."""


@dataclass(frozen=True)
class _Plan:
    """What is to be written, known before the first block.

    Args:
        names: the k modalities, in the order of the blocks.
        counts: instances that have each modality.
        rows: instances that have any.
        dim: columns of an embedding.
        dtype: float32 or float16.
        rows_per_file: rows of one Parquet file.
        share: the part of it that is written here; None for all.
    """

    names: tuple[str, ...]
    counts: tuple[int, ...]
    rows: int
    dim: int
    dtype: np.dtype[np.floating]
    rows_per_file: int
    share: Share | None

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


Written = tuple[dict[str, object], dict[Path, str]]
"""What a format adds to the manifest, and the digests of the files that were hashed as they were written."""


def write_export(
    blocks: Iterable[EmbeddedBlock],
    out: Path,
    *,
    names: Sequence[str],
    counts: Sequence[int],
    rows: int,
    dim: int,
    format: str = "parquet",
    dtype: str = "float32",
    rows_per_file: int = ROWS_PER_FILE,
    share: Share | None = None,
    force: bool = False,
    provenance: Mapping[str, object],
) -> dict[str, object]:
    """Write aligned embeddings to a folder, all of it or nothing, its manifest last.

    Instances without any modality are left out. The layouts: ``parquet`` one folder of parts for each modality,
    ``h5`` one file each, ``npy`` a store (``fused.npy`` beside it), ``arrow`` one IPC stream ``aligned.arrows``. The
    next block is made while the last one is written.

    Args:
        blocks: the instances in order; (B, k, d) embeddings each.
        out: the folder; an earlier export there is replaced.
        names: the k modalities, in the order of the blocks.
        counts: k numbers, the instances in the blocks that have each modality.
        rows: instances in the blocks that have at least one.
        dim: columns d of an embedding.
        format: one of ``FORMATS``.
        dtype: ``float32`` or ``float16``.
        rows_per_file: rows of one Parquet file, at least 1.
        share: what the blocks are of a larger export; None for the whole of one.
        force: replace ``out`` whatever it is.
        provenance: what it was made from, for the manifest: no time, host or absolute path.

    Returns: the manifest.

    Raises:
        UsageError: ``out`` is not ours to replace, or a modality's name cannot name a file.
        DataError: an id that HDF5 cannot hold.
        ValueError: the blocks hold other numbers of instances than announced.
    """
    with open_export(out, names, force=force) as folder:
        described, files = write_files(
            blocks,
            folder,
            names=names,
            counts=counts,
            rows=rows,
            dim=dim,
            format=format,
            dtype=dtype,
            rows_per_file=rows_per_file,
            share=share,
        )
        if share is not None:
            described["shard"] = {"index": share.index + 1, "of": share.of}
        return seal_export(folder, described, files, provenance)


@contextmanager
def open_export(out: Path, names: Sequence[str], *, force: bool) -> Iterator[Path]:
    """Give the empty folder of an export; with its manifest in it, it takes the name ``out`` at the end.

    Raises: UsageError: ``out`` is not ours to replace, or a modality's name cannot name a file.
    """
    _check_names(names)
    check_replaceable(out, kind=KIND, force=force)
    with atomic_folder(out, kind=KIND, force=force) as folder:
        yield folder


def seal_export(
    folder: Path, described: Mapping[str, object], files: Mapping[str, str], provenance: Mapping[str, object]
) -> dict[str, object]:
    """Write the manifest of an export whose files are written, and return it.

    Args:
        folder: of the export.
        described: what ``write_files`` says of them.
        files: the SHA-256 (hex) of each by its path.
        provenance: as in ``write_export``.
    """
    manifest = {**described, "files": dict(sorted(files.items())), "provenance": dict(provenance)}
    write_sealed(folder / MANIFEST, manifest)
    return manifest


def write_files(
    blocks: Iterable[EmbeddedBlock],
    folder: Path,
    *,
    names: Sequence[str],
    counts: Sequence[int],
    rows: int,
    dim: int,
    format: str,
    dtype: str,
    rows_per_file: int,
    share: Share | None,
) -> tuple[dict[str, object], dict[str, str]]:
    """Write the files of an export, or of a share of one, but for its manifest.

    Several writers may fill one folder with Parquet, each with its own ``share``: their parts together are, byte for
    byte, those that one writer would have written.

    Args:
        blocks: as in ``write_export``; they may hold more than the share.
        folder: exists; what is written here is in it and nothing else is looked at.
        names: as in ``write_export``, as are the others.
        counts: "
        rows: "
        dim: "
        format: "
        dtype: "
        rows_per_file: "
        share: "

    Returns: what the manifest says of them, and the SHA-256 (hex) of each file by its path in the folder.

    Raises: as ``write_export``.
    """
    plan = _Plan(tuple(names), tuple(int(n) for n in counts), rows, dim, np.dtype(dtype), rows_per_file, share)
    described: dict[str, object] = {
        "dim": dim,
        "dtype": dtype,
        "file_format": format,
        "format": EXPORT,
        "format_version": FORMAT_VERSION,
        "rows": rows,
    }
    added, files = _WRITERS[format](folder, _with_any(blocks), plan)
    return described | added, {path.relative_to(folder).as_posix(): digest for path, digest in sorted(files.items())}


def write_stream(
    blocks: Iterable[EmbeddedBlock], sink: BinaryIO, *, names: Sequence[str], dim: int, dtype: str = "float32"
) -> None:
    """Write an Arrow IPC stream: columns ``id``, one for each modality (null where lacking) and ``fused``.

    Each block is one record batch, flushed, so a reader at the other end of a pipe gets it at once. Instances
    without any modality are left out.

    Args:
        blocks: as in ``write_export``.
        sink: a binary file; left open.
        names: as in ``write_export``.
        dim: as in ``write_export``.
        dtype: ``float32`` or ``float16``.

    Raises: UsageError if a modality's name cannot name a column.
    """
    _check_names(names)
    plan = _Plan(tuple(names), (0,) * len(names), 0, dim, np.dtype(dtype), ROWS_PER_FILE, None)
    _stream(sink, _with_any(blocks), plan)


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if _NAME.fullmatch(name) is None or name in _RESERVED:
            what = "modality cannot name a file"
            raise UsageError(
                what,
                found=repr(name),
                expected=f"1 to 64 of A-Z a-z 0-9 . _ - without a leading dot, not {', '.join(sorted(_RESERVED))}",
                next_step="Fit and export with another name for it, as in name=FILE.",
            )


def _with_any(blocks: Iterable[EmbeddedBlock]) -> Iterator[EmbeddedBlock]:
    """Leave out instances without any modality."""
    for block in blocks:
        kept = block.present.any(axis=1)
        if kept.all():
            yield block
        else:
            yield EmbeddedBlock(
                block.ids.filter(pa.array(kept)), block.embeddings[kept], block.present[kept], block.fused[kept]
            )


def _check_count(name: str, written: int, announced: int) -> None:
    if written != announced:
        message = f"the blocks hold {written} instances of {name!r}, {announced} were announced"
        raise ValueError(message)


def _modalities(plan: _Plan) -> dict[str, object]:
    return {"modalities": {name: {"rows": n} for name, n in zip(plan.names, plan.counts, strict=True)}}


class _Behind:
    """Writes the tables of a block side by side, while the next block is made.

    Encoding, hashing and writing let go of the interpreter's lock. A context manager: leaving it waits for what is
    being written, so that nothing is closed before.
    """

    def __init__(self, tables: int) -> None:
        self._pool = ThreadPoolExecutor(min(tables, os.cpu_count() or 1))
        self._begun: list[Future[None]] = []

    def write(self, tasks: Iterable[Callable[[], None]]) -> None:
        """Begin the tasks of one block, once those of the block before are done.

        Raises: what one of those raised.
        """
        self.wait()
        self._begun = [self._pool.submit(task) for task in tasks]

    def wait(self) -> None:
        """Wait for all that was begun.

        Raises: what one of the tasks raised.
        """
        for task in self._begun:
            task.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self._pool.shutdown()


def _write_tables(
    blocks: Iterator[EmbeddedBlock], plan: _Plan, open_table: Callable[[str, Parts], VectorTable]
) -> dict[Path, str]:
    parts = plan.tables()
    seen = dict.fromkeys(parts, 0)
    with ExitStack() as stack:
        tables = {name: stack.enter_context(closing(open_table(name, p))) for name, p in parts.items()}
        behind = stack.enter_context(_Behind(len(tables)))

        def write(
            name: str, block: EmbeddedBlock, vectors: npt.NDArray[np.float32], has: npt.NDArray[np.bool_]
        ) -> None:
            rows = np.flatnonzero(has)
            first, last = (x - seen[name] for x in (parts[name].skip, parts[name].skip + parts[name].rows))
            seen[name] += len(rows)
            rows = rows[max(0, first) : max(0, last)]
            if len(rows) == len(has):
                tables[name].write(block.ids, vectors.astype(plan.dtype, order="C", copy=False))
            elif len(rows):
                tables[name].write(block.ids.take(pa.array(rows)), vectors[rows].astype(plan.dtype, copy=False))

        for block in blocks:
            whole = [(name, block.embeddings[:, m], block.present[:, m]) for m, name in enumerate(plan.names)]
            whole.append((FUSED, block.fused, np.ones(len(block.ids), dtype=np.bool_)))
            behind.write(partial(write, name, block, vectors, has) for name, vectors, has in whole)
        behind.wait()
        for name, part in parts.items():
            _check_count(name, seen[name], part.held)
    return {path: digest for table in tables.values() for path, digest in table.digests.items()}


def _write_parquet(folder: Path, blocks: Iterator[EmbeddedBlock], plan: _Plan) -> Written:
    def open_table(name: str, parts: Parts) -> VectorTable:
        return ParquetParts(folder / name, parts, plan.dim, plan.dtype, plan.rows_per_file)

    return _modalities(plan), _write_tables(blocks, plan, open_table)


def _write_hdf5(folder: Path, blocks: Iterator[EmbeddedBlock], plan: _Plan) -> Written:
    paths = {name: folder / f"{name}{plan.suffix}.h5" for name in plan.tables()}
    _write_tables(blocks, plan, lambda name, parts: Hdf5File(paths[name], parts.rows, plan.dim, plan.dtype))
    with ThreadPoolExecutor() as pool:
        return _modalities(plan), dict(zip(paths.values(), pool.map(sha256_of, paths.values()), strict=True))


class _NpyFile(HashedFile):
    """An npy file written from its first row to its last."""

    def __init__(self, path: Path, shape: tuple[int, int], dtype: npt.DTypeLike) -> None:
        super().__init__(path)
        self.path = path
        self._dtype = np.dtype(dtype)
        self.write(npy_header(self._dtype, *shape))

    def write_rows(self, rows: npt.NDArray[np.generic]) -> None:
        """Append rows."""
        self.write(np.ascontiguousarray(rows, self._dtype).reshape(-1).view(np.uint8).data)


class _Ids:
    """The ids of all blocks, in two buffers that grow.

    A list of Arrow arrays would do, but what little each holds lies between the large arrays of its block and the
    next: memory that those give back would stay in pieces too small for others, and an export would grow by its size.
    """

    def __init__(self) -> None:
        self._text = bytearray()
        self._lengths = array("q")

    def add(self, ids: pa.LargeStringArray) -> None:
        """Append (B,) ids."""
        compact = pa.concat_arrays([ids])  # a slice keeps the buffers of the whole
        if len(compact):
            offsets = np.frombuffer(compact.buffers()[1], dtype=np.int64)[: len(compact) + 1]
            self._lengths.frombytes(np.diff(offsets).tobytes())
            self._text += memoryview(compact.buffers()[2])[offsets[0] : offsets[-1]]

    def __len__(self) -> int:
        return len(self._lengths)

    def array(self) -> pa.LargeStringArray:
        """Return all of them."""
        offsets = np.zeros(len(self) + 1, dtype=np.int64)
        np.cumsum(np.array(self._lengths, dtype=np.int64), out=offsets[1:])
        return pa.LargeStringArray.from_buffers(len(self), pa.py_buffer(offsets), pa.py_buffer(self._text))


def _write_store(folder: Path, blocks: Iterator[EmbeddedBlock], plan: _Plan) -> Written:
    ids = _Ids()
    schema = pa.schema([pa.field("id", pa.string(), nullable=False)])
    with ExitStack() as stack:

        def open_npy(name: str, columns: int, dtype: npt.DTypeLike) -> _NpyFile:
            return stack.enter_context(_NpyFile(folder / f"{name}.npy", (plan.rows, columns), dtype))

        vectors = [open_npy(name, plan.dim, plan.dtype) for name in plan.names]
        fused = open_npy(FUSED, plan.dim, plan.dtype)
        present = open_npy("present", len(plan.names), np.bool_)
        files = [*vectors, fused, present]
        behind = stack.enter_context(_Behind(len(files)))
        for block in blocks:
            rows = [*block.embeddings.swapaxes(0, 1), block.fused, block.present]
            behind.write(partial(file.write_rows, each) for file, each in zip(files, rows, strict=True))
            ids.add(block.ids)
        behind.wait()
        _check_count("any modality", len(ids), plan.rows)
    everyone = ids.array()
    table = pa.table([everyone.cast(pa.string())], schema=schema)
    with HashedFile(folder / IDS) as file:
        pq.write_table(table, file, compression="none", use_dictionary=False, write_page_checksum=True)
    modalities = [
        {
            "digest": file.hexdigest(),
            "dim": plan.dim,
            "dtype": plan.dtype.name,
            "name": name,
            "rows": plan.rows,
        }
        for name, file in zip(plan.names, vectors, strict=True)
    ]
    described: dict[str, object] = {
        "format": STORE,
        "modalities": modalities,
        "ids": {"digest": digest_ids(everyone), "named_by_row": False},
        "columns": [],
        "notes": [],
    }
    return described, {**{one.path: one.hexdigest() for one in files}, folder / IDS: file.hexdigest()}


def _stream(sink: BinaryIO, blocks: Iterator[EmbeddedBlock], plan: _Plan) -> int:
    """Write the stream and return its rows."""
    type_ = vector_type(plan.dim, plan.dtype)

    def column(vectors: npt.NDArray[np.float32], missing: npt.NDArray[np.bool_] | None) -> pa.Array:
        values = pa.array(np.ascontiguousarray(vectors, plan.dtype).ravel())
        mask = None if missing is None else pa.array(missing)
        return pa.FixedSizeListArray.from_arrays(values, type=type_, mask=mask)

    fields = [pa.field("id", pa.string(), nullable=False)]
    fields += [pa.field(name, type_) for name in plan.names]
    fields += [pa.field(FUSED, type_, nullable=False)]
    schema = pa.schema(fields)
    rows = 0
    with pa.ipc.new_stream(sink, schema) as writer:
        for block in blocks:
            columns = [column(block.embeddings[:, m], ~block.present[:, m]) for m in range(len(plan.names))]
            arrays = [block.ids.cast(pa.string()), *columns, column(block.fused, None)]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
            sink.flush()
            rows += len(block.ids)
    sink.flush()
    return rows


def _write_arrow(folder: Path, blocks: Iterator[EmbeddedBlock], plan: _Plan) -> Written:
    path = folder / f"aligned{plan.suffix}.arrows"
    with HashedFile(path) as sink:
        _check_count("any modality", _stream(sink, blocks, plan), plan.rows)
    return _modalities(plan), {path: sink.hexdigest()}


_WRITERS = {"parquet": _write_parquet, "h5": _write_hdf5, "npy": _write_store, "arrow": _write_arrow}
FORMATS = tuple(_WRITERS)
