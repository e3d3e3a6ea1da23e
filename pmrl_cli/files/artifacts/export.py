"""Aligned embeddings to a folder or a stream, block by block, in the formats of ``writers``.

Nothing here holds more than a few thousand instances (HDF5: plus the ids; faiss: its indices), and the bytes of all
formats but Arrow and Lance do not depend on how the instances were cut into blocks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from pmrl_cli.data.dataset import EmbeddedBlock
from pmrl_cli.errors import UsageError
from pmrl_cli.files.artifacts.plan import ExportPlan
from pmrl_cli.files.artifacts.writer_parts import FUSED
from pmrl_cli.files.artifacts.writers import REGISTRY
from pmrl_cli.files.durable.atomic import atomic_folder
from pmrl_cli.files.durable.checksums import FORMAT_VERSION, write_with_digest
from pmrl_cli.files.durable.outputs import MANIFEST, check_replaceable
from pmrl_cli.files.formats.store import EXPORT

__all__ = ["KIND", "complete_export", "open_export", "write_export", "write_files", "write_stream"]

KIND = EXPORT
"""What the manifest of an export calls it."""

_NAME = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,64}")
_RESERVED = frozenset({FUSED, "id", "present", MANIFEST})
"""What a modality may not be called, for a file or column of every export is called so."""


def write_export(
    blocks: Iterable[EmbeddedBlock],
    out: Path,
    plan: ExportPlan,
    *,
    force: bool = False,
    provenance: Mapping[str, object],
) -> dict[str, object]:
    """Write aligned embeddings to a folder, all of it or nothing, its manifest last.

    Instances without any modality are left out. What is in the folder: ``parquet`` a folder of parts for each
    modality (wide: one file), ``h5`` and ``csv`` a file each, ``faiss`` an index each with its ids, ``npy`` a store
    (``fused.npy`` beside it), ``arrow`` one IPC stream ``aligned.arrows``, ``lance`` one data set. The next block is
    made while the last one is written.

    Args:
        blocks: the instances in order; (B, k, d) embeddings each.
        out: the folder; an earlier export there is replaced.
        plan: what the blocks hold and how it is written.
        force: replace ``out`` whatever it is.
        provenance: what it was made from, for the manifest: no time, host or absolute path.

    Returns: the manifest.

    Raises:
        UsageError: ``out`` exists and is no export, or a modality's name cannot name a file.
        DataError: an id that HDF5 cannot hold.
        ValueError: the blocks hold other numbers of instances than announced.
    """
    with open_export(out, plan.names, force=force) as folder:
        described, files = write_files(blocks, folder, plan)
        if plan.part is not None:
            described["shard"] = {"index": plan.part.index + 1, "of": plan.part.of}
        return complete_export(folder, described, files, provenance)


@contextmanager
def open_export(out: Path, names: Sequence[str], *, force: bool) -> Iterator[Path]:
    """Give the empty folder of an export; with its manifest in it, it takes the name ``out`` at the end.

    Raises: UsageError: ``out`` exists and is no export, or a modality's name cannot name a file.
    """
    _check_names(names)
    check_replaceable(out, kind=KIND, force=force)
    with atomic_folder(out, kind=KIND, force=force) as folder:
        yield folder


def complete_export(
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
    write_with_digest(folder / MANIFEST, manifest)
    return manifest


def write_files(
    blocks: Iterable[EmbeddedBlock], folder: Path, plan: ExportPlan
) -> tuple[dict[str, object], dict[str, str]]:
    """Write the files of an export, or of a part of one, but for its manifest.

    Several writers may fill one folder with Parquet, each with its own ``part``: their parts together are, byte for
    byte, those that one writer would have written.

    Args:
        blocks: as in ``write_export``; they may hold more than the part.
        folder: exists; what is written here is in it; nothing else in it is read.
        plan: as in ``write_export``.

    Returns: what the manifest says of them, and the SHA-256 (hex) of each file by its path in the folder.

    Raises: as ``write_export``.
    """
    described: dict[str, object] = {
        "dim": plan.dim,
        "dtype": plan.dtype,
        "file_format": plan.format,
        "format": EXPORT,
        "format_version": FORMAT_VERSION,
        "rows": plan.rows,
    }
    added, files = REGISTRY[plan.format].module.write(folder, _with_any(blocks), plan)
    if plan.compressed is not None:
        described |= plan.compressed.described()
        files |= plan.compressed.write(folder)
    return described | added, {path.relative_to(folder).as_posix(): digest for path, digest in sorted(files.items())}


def write_stream(blocks: Iterable[EmbeddedBlock], sink: BinaryIO, plan: ExportPlan) -> None:
    """Write blocks as one stream: of Arrow IPC, with ``id``, each modality (null where lacking) and ``fused``.

    Each block is one record batch, flushed, so a reader at the other end of a pipe gets it at once. Instances
    without any modality are left out.

    Args:
        blocks: as in ``write_export``.
        sink: a binary file; left open.
        plan: as in ``write_export``; its counts are not asked for.

    Raises: UsageError if a modality's name cannot name a column.
    """
    _check_names(plan.names)
    REGISTRY[plan.format].module.stream(sink, _with_any(blocks), plan)


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if _NAME.fullmatch(name) is None or name in _RESERVED:
            raise UsageError(
                what="modality cannot name a file",
                found=repr(name),
                expected=f"1 to 64 of A-Z a-z 0-9 . _ - without a leading dot, not {', '.join(sorted(_RESERVED))}",
                next_step="Fit and export with another name for it, as in name=FILE.",
            )


def _with_any(blocks: Iterable[EmbeddedBlock]) -> Iterator[EmbeddedBlock]:
    """Leave out instances without any modality."""
    for block in blocks:
        kept = np.any(block.present, axis=1, keepdims=True)[:, 0]
        if kept.all():
            yield block
        else:
            yield EmbeddedBlock(
                block.ids.filter(pa.array(kept)),
                block.embeddings[kept],
                block.present[kept],
                block.fused[kept],
                {name: output[kept] for name, output in block.extra.items()},
                None if block.codes is None else block.codes[kept],
                None if block.imputed is None else block.imputed.rows(kept),
            )
