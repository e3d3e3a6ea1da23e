"""Rows of ingest and export, against plain reads and writes of the same bytes.

Wall seconds in one process, medians; what is timed and its reference take turns. The reference reads every byte of
the input in blocks of 8 MiB, writes as many bytes as the output has into as many files, and flushes them to disk, in
the same folder; the input is in the page cache for both. Of an export the model's arithmetic is no I/O: it is timed
apart, on blocks in memory, and the ratio in the note is that of the rest. ``write`` rows are given their vectors:
nothing is read or computed. On a busy machine the CPU seconds, those of the reading process among them, say more.
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from rows import Row, Run

from pmrl_cli import Aligner
from pmrl_cli.data.dataset import Dataset, EmbeddedBlock
from pmrl_cli.files.artifacts.export import write_export
from pmrl_cli.files.artifacts.plan import ExportPlan
from pmrl_cli.files.artifacts.store import ingest_store
from pmrl_cli.files.durable.atomic import _sync
from pmrl_cli.files.formats import sandbox_client
from pmrl_cli.files.formats.store import open_store

BLOCK = 8 * 2**20
FORMATS = ("parquet", "npy", "h5")


def make_features(folder: Path, kind: str, rows: int, dim: int, modalities: int) -> list[Path]:
    """Write feature files of random float32 in blocks: contiguous HDF5 with ids, or npy."""
    generator = np.random.default_rng(0)
    step = max(1, BLOCK // (4 * dim))
    folder.mkdir()
    paths = []
    for m in range(modalities):
        path = folder / f"m{m}.{kind}"
        paths.append(path)
        blocks = ((start, min(step, rows - start)) for start in range(0, rows, step))
        if kind == "npy":
            array = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, dim))
            for start, count in blocks:
                array[start : start + count] = generator.standard_normal((count, dim), dtype=np.float32)
            array.flush()
            continue
        with h5py.File(path, "w") as file:
            vectors = file.create_dataset("features", (rows, dim), np.float32)
            for start, count in blocks:
                vectors[start : start + count] = generator.standard_normal((count, dim), dtype=np.float32)
            file["id"] = np.char.mod("instance-%09d", np.arange(rows)).astype("S")
    return paths


def files_in(path: Path) -> list[Path]:
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def raw_copy(inputs: Sequence[Path], sizes: Sequence[int], folder: Path) -> None:
    """Read every input, a block at a time, write files of those sizes, and flush them: a write follows each read."""
    buffer = bytearray(BLOCK)
    folder.mkdir()

    def reads() -> Iterator[None]:
        for path in inputs:
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    yield

    reading = reads()
    for number, size in enumerate(sizes):
        with (folder / str(number)).open("wb", buffering=0) as file:
            for start in range(0, size, BLOCK):
                next(reading, None)
                file.write(memoryview(buffer)[: min(BLOCK, size - start)])
    for _ in reading:
        pass
    for path in folder.iterdir():
        _sync(path)
    _sync(folder)


class Taken(NamedTuple):
    """Seconds that a call took, by the clock and of processor time."""

    wall: float
    cpu: float


def processor_seconds() -> float:
    """Return those of this process and of its reading processes."""
    ticks = 0
    for worker in sandbox_client._idle:
        fields = Path(f"/proc/{worker.process.pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def timed(call: Callable[[], object]) -> Taken:
    start, used = time.perf_counter(), processor_seconds()
    call()
    return Taken(time.perf_counter() - start, processor_seconds() - used)


def medians(all_taken: Sequence[Taken]) -> Taken:
    return Taken(*(statistics.median(column) for column in zip(*all_taken, strict=True)))


def against(
    run: Callable[[Path], object], inputs: Sequence[Path], folder: Path, repeats: int
) -> tuple[Taken, Taken, int]:
    """Return what ``run(out)`` and the raw copy take, in turn, and the bytes written."""
    ours, raw = [], []
    read = [file for path in inputs for file in files_in(path)]
    sizes: list[int] = []
    for turn in range(repeats + 1):  # one to warm up: what is imported, started and allocated once
        for out in (folder / "out", folder / "copy"):
            shutil.rmtree(out, ignore_errors=True)
        taken = timed(lambda: run(folder / "out"))
        sizes = [file.stat().st_size for file in files_in(folder / "out")]
        shutil.rmtree(folder / "out")
        copied = timed(partial(raw_copy, read, sizes, folder / "copy"))
        shutil.rmtree(folder / "copy")
        if turn:
            ours.append(taken)
            raw.append(copied)
    return medians(ours), medians(raw), sum(sizes)


def row_of(name: str, ours: Taken, raw: Taken, size: int, arithmetic: Taken | None = None) -> Row:
    note = f"{size / 1e9:.2f} GB written; CPU {ours.cpu:.2f} s, raw {raw.cpu:.2f} s"
    if arithmetic is not None:
        ratio = raw.wall / max(ours.wall - arithmetic.wall, 1e-9)
        note += f"; arithmetic {arithmetic.wall:.2f} s (CPU {arithmetic.cpu:.2f} s), without it {ratio:.2f}"
    return Row(name, ours.wall, {"raw read and write": raw.wall}, note=note)


def ingest(
    folder: Path, *, rows: int, dim: int, modalities: int, repeats: int, kinds: Sequence[str] = ("h5", "npy")
) -> Iterator[Row]:
    """Time ``ingest`` of each kind of input."""
    for kind in kinds:
        paths = make_features(folder / kind, kind, rows, dim, modalities)
        names = [str(path) for path in paths]
        ours, raw, size = against(lambda out, names=names: ingest_store(names, out), paths, folder, repeats)
        yield row_of(f"ingest {kind}", ours, raw, size)
        shutil.rmtree(folder / kind)


def fitted(dataset: Dataset, dim: int) -> Aligner:
    """Return a linear aligner of one member, fitted on a few thousand instances: what it maps to is no matter."""
    few = {f.name: f.read(slice(0, 4 * max(dataset.dims))) for f in dataset.modalities}
    return Aligner(dim=dim, steps=0, adapter="linear", device="cpu").fit(few)


def known_blocks(dataset: Dataset, dim: int) -> Iterator[EmbeddedBlock]:
    """Yield blocks of vectors that cost nothing, in the blocks of the data set."""
    step = dataset.block_rows()
    bank = np.random.default_rng(0).standard_normal((step, len(dataset.names) + 1, dim), dtype=np.float32)
    vectors, fused = np.ascontiguousarray(bank[:, :-1]), np.ascontiguousarray(bank[:, -1])
    for start in range(0, len(dataset), step):
        ids = dataset.ids[start : start + step]
        yield EmbeddedBlock(ids, vectors[: len(ids)], dataset.present[start : start + step], fused[: len(ids)])


def arithmetic(aligner: Aligner, dataset: Dataset) -> Taken:
    """Return what the model's arithmetic alone takes: one block in memory, embedded again and again."""
    step = dataset.block_rows()
    block = Dataset(
        dataset.ids[:step],
        tuple(type(f)(f.name, np.array(f.array[:step]), f.bfloat16) for f in dataset.modalities),
        dataset.present[:step],
    )
    list(aligner.embed(block))
    one = medians([timed(lambda: list(aligner.embed(block))) for _ in range(9)])
    return Taken(*(seconds * len(dataset) / len(block) for seconds in one))


def export(
    folder: Path,
    *,
    rows: int,
    dim: int,
    modalities: int,
    repeats: int,
    out_dim: int = 256,
    dtype: str = "float32",
    formats: Sequence[str] = FORMATS,
) -> Iterator[Row]:
    """Time the export of a store in each format, and its writing alone."""
    paths = make_features(folder / "npy", "npy", rows, dim, modalities)
    store = folder / "store"
    ingest_store([str(path) for path in paths], store)
    shutil.rmtree(folder / "npy")
    dataset = open_store(store)
    aligner = fitted(dataset, out_dim)

    def write(out: Path, blocks: Iterator[EmbeddedBlock], format: str) -> None:
        write_export(
            blocks,
            out,
            ExportPlan(dataset.names, (rows,) * modalities, rows, out_dim, format=format, dtype=dtype),
            provenance={},
        )

    for format in formats:
        compute = arithmetic(aligner, dataset)
        ours, raw, size = against(
            lambda out, format=format: write(out, aligner.embed(open_store(store)), format), [store], folder, repeats
        )
        yield row_of(f"export {format}", ours, raw, size, arithmetic=compute)
        ours, raw, size = against(
            lambda out, format=format: write(out, known_blocks(dataset, out_dim), format), [], folder, repeats
        )
        yield row_of(f"write {format}", ours, raw, size)


def transfer_rows(run: Run) -> Iterator[Row]:
    """Yield a row for each input of ingest and for each format of export."""
    size = {"rows": 10_000 if run.quick else 200_000, "dim": 512, "modalities": 3, "repeats": 1 if run.quick else 3}
    with tempfile.TemporaryDirectory(prefix="pmrl-transfer-") as folder:
        yield from ingest(Path(folder), **size)
        yield from export(Path(folder), **size)
