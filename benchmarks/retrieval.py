"""Time exact ranks against faiss and a whole sort, and a diagnosis against one read of its files.

    python benchmarks/retrieval.py [--count 50000] [--threads 2] [--repeats 3]
    python benchmarks/retrieval.py --diagnose

Variants are interleaved in one process, medians of process CPU time with one thread and of wall time with more.
faiss (``faiss-cpu``, not a dependency of pmrl: its rows are left out where it cannot be imported) looks up the first
ten in ``IndexFlatIP``, in one direction and without ties or ranks beyond the tenth; ours gives every rank, ties told
apart, in both directions. faiss and the sort are measured on some of the queries and scaled: both go through the
queries in blocks no larger than that.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from pmrl_cli.data.dataset import Dataset, Features
from pmrl_cli.diagnosis import diagnose_state, state_of
from pmrl_cli.files.reading import read_dataset
from pmrl_cli.retrieval.ranks import rank_dataset

FAISS_QUERIES = 8192  # two of its blocks
SORTED_QUERIES = 512


class Row(NamedTuple):
    """One comparison: how many times the time of ``reference`` is that of ours, or ours that of a floor."""

    name: str
    seconds: float
    reference: float
    ratio: float
    note: str


def clock(threads: int) -> Callable[[], float]:
    """Return CPU time of the process for one thread, else wall time."""
    return time.process_time if threads == 1 else time.perf_counter


def medians(variants: dict[str, Callable[[], object]], *, repeats: int, threads: int) -> dict[str, float]:
    """Return the median seconds of each variant, run in turn."""
    now, times = clock(threads), {name: [] for name in variants}
    for _ in range(repeats):
        for name, variant in variants.items():
            start = now()
            variant()
            times[name].append(now() - start)
    return {name: statistics.median(series) for name, series in times.items()}


def two_modalities(count: int, dim: int) -> Dataset:
    """Return instances whose partners are often, and not always, nearest."""
    generator = np.random.default_rng(0)
    latent = generator.standard_normal((count, dim), dtype=np.float32)
    arrays = [latent + 2.2 * generator.standard_normal((count, dim), dtype=np.float32) for _ in range(2)]
    arrays = [array / np.linalg.norm(array, axis=1, keepdims=True) for array in arrays]
    ids = pa.array([str(i) for i in range(count)], pa.large_string())
    features = tuple(Features(name, array) for name, array in zip("ab", arrays, strict=True))
    return Dataset(ids, features, np.ones((count, 2), dtype=bool))


def faiss_search(
    queries: npt.NDArray[np.float32], gallery: npt.NDArray[np.float32], threads: int
) -> Callable[[], object]:
    """Return a search for the first ten."""
    os.environ["OPENBLAS_NUM_THREADS"] = str(threads)  # read when its library is loaded
    import faiss

    faiss.omp_set_num_threads(threads)
    index: Any = faiss.IndexFlatIP(gallery.shape[1])
    index.add(gallery)
    return lambda: index.search(queries, 10)


def ranks(*, count: int = 50_000, dim: int = 512, threads: int = 1, repeats: int = 3) -> list[Row]:
    """Return the rows of exact ranks of ``count`` instances among themselves, both directions of one pair."""
    torch.set_num_threads(threads)
    dataset, everyone = two_modalities(count, dim), np.arange(count)
    queries, gallery = (features.array for features in dataset.modalities)
    some, candidates = torch.from_numpy(queries[:SORTED_QUERIES]), torch.from_numpy(gallery)
    block, product = torch.from_numpy(queries[:2048]), torch.empty(2048, 2048)
    variants: dict[str, Callable[[], object]] = {
        "ours": lambda: rank_dataset(dataset, everyone),
        "sort": lambda: (some @ candidates.T).argsort(dim=1, descending=True),
        "product": lambda: [torch.mm(block, block.T, out=product) for _ in range(10)],
    }
    if find_spec("faiss") is not None:
        variants["faiss"] = faiss_search(queries[:FAISS_QUERIES], gallery, threads)
    seconds = medians(variants, repeats=repeats, threads=threads)
    ours = seconds["ours"]
    kind = "CPU, 1 thread" if threads == 1 else f"wall, {threads} threads"
    sort = seconds["sort"] * count / min(SORTED_QUERIES, count)
    product = seconds["product"] / 10 * count**2 / len(block) ** 2
    rows = [
        Row("ranks / one product", ours, product, ours / product, f"{kind}; the product alone, at its best block"),
        Row("whole sort, one direction", ours, sort, sort / ours, f"{kind}; {SORTED_QUERIES} queries, scaled"),
    ]
    if "faiss" in seconds:
        one = seconds["faiss"] * count / min(FAISS_QUERIES, count)
        note = f"{kind}; {min(FAISS_QUERIES, count)} queries, scaled"
        rows.append(Row("faiss flat, first ten, one direction", ours, one, one / ours, note))
        rows.append(Row("faiss flat, first ten, both directions", ours, 2 * one, 2 * one / ours, note))
    else:
        print("faiss is not installed: without its rows (pip install faiss-cpu==1.15.1)")
    return rows


def diagnosis(*, count: int = 200_000, dim: int = 256, modalities: int = 3, repeats: int = 3) -> list[Row]:
    """Return the rows of ``pmrl diagnose`` on float32 npy files: reading, the pass, what follows from its state."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        generator = np.random.default_rng(0)
        latent = generator.standard_normal((count, dim), dtype=np.float32)
        paths = [Path(folder) / f"{m}.npy" for m in range(modalities)]
        for path in paths:
            np.save(path, latent + generator.standard_normal((count, dim), dtype=np.float32))
        dataset = read_dataset([folder])
        state = state_of(dataset)
        buffer = bytearray(2**24)

        def read_raw() -> None:
            for path in paths:
                with path.open("rb", buffering=0) as file:
                    while file.readinto(buffer):
                        pass

        seconds = medians(
            {
                "raw": read_raw,
                "read": lambda: read_dataset([folder]),
                "pass": lambda: state_of(dataset),
                "rest": lambda: diagnose_state(state),
            },
            repeats=repeats,
            threads=1,
        )
    raw = seconds["raw"]
    names = {"read": "read and join", "pass": "the pass to a state", "rest": "from a state to the diagnosis"}
    note = f"CPU; {count:,} x {modalities} x {dim}; reference: one read of the bytes, from the cache of the system"
    return [Row(name, seconds[key], raw, seconds[key] / raw, note) for key, name in names.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--diagnose", action="store_true")
    options = parser.parse_args()
    if options.diagnose:
        rows = diagnosis(repeats=options.repeats)
    else:
        rows = ranks(count=options.count, dim=options.dim, threads=options.threads, repeats=options.repeats)
    print(f"{'':40} {'ours s':>8} {'reference s':>12} {'ratio':>7}")
    for row in rows:
        print(f"{row.name:40} {row.seconds:8.2f} {row.reference:12.2f} {row.ratio:7.2f}  {row.note}")


if __name__ == "__main__":
    main()
