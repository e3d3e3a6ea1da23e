"""Aligned embeddings to a folder or a stream, block by block: Parquet, HDF5, a store or Arrow.

Nothing here holds more than a few thousand instances (HDF5: plus the ids), and the bytes of Parquet, HDF5 and the
store do not depend on how the instances were cut into blocks.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pmrl_cli.data.dataset import EmbeddedBlock
from pmrl_cli.errors import UsageError
from pmrl_cli.files.atomic import MANIFEST, atomic_folder, check_replaceable
from pmrl_cli.files.manifest import EXPORT, STORE, digest_ids
from pmrl_cli.files.sealed import FORMAT_VERSION, digests, write_sealed
from pmrl_cli.files.vector_tables import Hdf5File, ParquetParts, VectorTable, vector_type

__all__ = ["FORMATS", "FUSED", "KIND", "ROWS_PER_FILE", "write_export", "write_stream"]

FUSED = "fused"
ROWS_PER_FILE = 262_144
"""Rows of one Parquet file: 512 MiB of 512 float32."""

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
    """

    names: tuple[str, ...]
    counts: tuple[int, ...]
    rows: int
    dim: int
    dtype: np.dtype[np.floating]
    rows_per_file: int

    def tables(self) -> dict[str, int]:
        """Rows of each table by name: the modalities and the fused one."""
        return {**dict(zip(self.names, self.counts, strict=True)), FUSED: self.rows}


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
    force: bool = False,
    provenance: Mapping[str, object],
) -> dict[str, object]:
    """Write aligned embeddings to a folder, all of it or nothing, its manifest last.

    Instances without any modality are left out. The layouts: ``parquet`` one folder of parts for each modality,
    ``h5`` one file each, ``npy`` a store (``fused.npy`` beside it), ``arrow`` one IPC stream ``aligned.arrows``.

    Args:
        blocks: the instances in order; (B, k, d) embeddings each.
        out: the folder; an earlier export there is replaced.
        names: the k modalities, in the order of the blocks.
        counts: k numbers, the instances that have each modality.
        rows: instances that have at least one.
        dim: columns d of an embedding.
        format: one of ``FORMATS``.
        dtype: ``float32`` or ``float16``.
        rows_per_file: rows of one Parquet file, at least 1.
        force: replace ``out`` whatever it is.
        provenance: what it was made from, for the manifest: no time, host or absolute path.

    Returns: the manifest.

    Raises:
        UsageError: ``out`` is not ours to replace, or a modality's name cannot name a file.
        DataError: an id that HDF5 cannot hold.
        ValueError: the blocks hold other numbers of instances than announced.
    """
    _check_names(names)
    check_replaceable(out, kind=KIND, force=force)
    plan = _Plan(tuple(names), tuple(int(n) for n in counts), rows, dim, np.dtype(dtype), rows_per_file)
    with atomic_folder(out, kind=KIND, force=force) as folder:
        manifest: dict[str, object] = {
            "dim": dim,
            "dtype": dtype,
            "file_format": format,
            "format": EXPORT,
            "format_version": FORMAT_VERSION,
            "provenance": dict(provenance),
            "rows": rows,
            **_WRITERS[format](folder, _with_any(blocks), plan),
        }
        manifest["files"] = digests(folder)
        write_sealed(folder / MANIFEST, manifest)
    return manifest


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
    plan = _Plan(tuple(names), (0,) * len(names), 0, dim, np.dtype(dtype), ROWS_PER_FILE)
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


def _write_tables(
    blocks: Iterator[EmbeddedBlock], plan: _Plan, open_table: Callable[[str, int], VectorTable]
) -> dict[str, object]:
    written = dict.fromkeys(plan.tables(), 0)
    with ExitStack() as stack:
        tables = {name: stack.enter_context(closing(open_table(name, n))) for name, n in plan.tables().items()}

        def write(name: str, ids: pa.LargeStringArray, vectors: npt.NDArray[np.float32]) -> None:
            written[name] += len(ids)
            tables[name].write(ids, vectors.astype(plan.dtype, order="C", copy=False))

        for block in blocks:
            for m, name in enumerate(plan.names):
                has = block.present[:, m]
                write(name, block.ids.filter(pa.array(has)), block.embeddings[has, m])
            write(FUSED, block.ids, block.fused)
        for name, announced in plan.tables().items():
            _check_count(name, written[name], announced)
    return _modalities(plan)


def _write_parquet(folder: Path, blocks: Iterator[EmbeddedBlock], plan: _Plan) -> dict[str, object]:
    return _write_tables(
        blocks, plan, lambda name, rows: ParquetParts(folder / name, rows, plan.dim, plan.dtype, plan.rows_per_file)
    )


def _write_hdf5(folder: Path, blocks: Iterator[EmbeddedBlock], plan: _Plan) -> dict[str, object]:
    return _write_tables(blocks, plan, lambda name, rows: Hdf5File(folder / f"{name}.h5", rows, plan.dim, plan.dtype))


class _NpyFile:
    """An npy file written from its first row to its last, and the SHA-256 of those rows."""

    def __init__(self, path: Path, shape: tuple[int, int], dtype: npt.DTypeLike) -> None:
        self._file = path.open("wb")
        self.digest = hashlib.sha256()
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)

    def write(self, rows: npt.NDArray[np.generic]) -> None:
        data = np.ascontiguousarray(rows).data
        self._file.write(data)
        self.digest.update(data)

    def close(self) -> None:
        self._file.close()


def _write_store(folder: Path, blocks: Iterator[EmbeddedBlock], plan: _Plan) -> dict[str, object]:
    written = 0
    schema = pa.schema([pa.field("id", pa.string(), nullable=False)])
    with ExitStack() as stack:

        def open_npy(name: str, columns: int, dtype: npt.DTypeLike) -> _NpyFile:
            return stack.enter_context(closing(_NpyFile(folder / f"{name}.npy", (plan.rows, columns), dtype)))

        vectors = [open_npy(name, plan.dim, plan.dtype) for name in plan.names]
        fused = open_npy(FUSED, plan.dim, plan.dtype)
        present = open_npy("present", len(plan.names), np.bool_)
        ids: list[pa.LargeStringArray] = []
        for block in blocks:
            for m, file in enumerate(vectors):
                file.write(block.embeddings[:, m].astype(plan.dtype, copy=False))
            fused.write(block.fused.astype(plan.dtype, copy=False))
            present.write(block.present)
            ids.append(block.ids)
            written += len(block.ids)
        _check_count("any modality", written, plan.rows)
    everyone = pa.chunked_array(ids, pa.large_string())
    table = pa.table([everyone.cast(pa.string())], schema=schema).combine_chunks()
    pq.write_table(table, folder / "ids.parquet", compression="none", use_dictionary=False, write_page_checksum=True)
    modalities = [
        {
            "digest": file.digest.hexdigest(),
            "dim": plan.dim,
            "dtype": plan.dtype.name,
            "name": name,
            "rows": plan.rows,
        }
        for name, file in zip(plan.names, vectors, strict=True)
    ]
    digest = digest_ids(pa.concat_arrays(everyone.chunks) if ids else pa.array([], pa.large_string()))
    return {
        "format": STORE,
        "modalities": modalities,
        "ids": {"digest": digest, "named_by_row": False},
        "columns": [],
        "notes": [],
    }


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


def _write_arrow(folder: Path, blocks: Iterator[EmbeddedBlock], plan: _Plan) -> dict[str, object]:
    with (folder / "aligned.arrows").open("wb") as sink:
        _check_count("any modality", _stream(sink, blocks, plan), plan.rows)
    return _modalities(plan)


_WRITERS = {"parquet": _write_parquet, "h5": _write_hdf5, "npy": _write_store, "arrow": _write_arrow}
FORMATS = tuple(_WRITERS)
