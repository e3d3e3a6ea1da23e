"""Rows of exact ranks, against faiss and a whole sort, and of a diagnosis, against one read of its files.

faiss (``faiss-cpu`` 1.15.1 here; no dependency of pmrl, and its columns are left out where it cannot be imported)
looks up the first ten in ``IndexFlatIP``, in one direction and without ties or ranks beyond the tenth; ours gives
every rank, ties counted as such, in both directions. faiss and the sort are measured on some of the queries and
scaled: both go through the queries in blocks no larger than that.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from rows import Row, Run, in_turn, row_of

from pmrl_cli.diagnosis import diagnose_state, state_of
from pmrl_cli.files.join.dataset import read_dataset
from pmrl_cli.retrieval.batches import Batch
from pmrl_cli.retrieval.ranks import rank_batch

DIM = 512
FAISS_QUERIES = 8192  # two of its blocks
SORTED_QUERIES = 512
BLOCK = 2048


def unit_vectors(count: int, dim: int) -> torch.Tensor:
    """Return (count, 2, dim) unit vectors whose partners are often, and not always, nearest."""
    torch.manual_seed(0)
    vectors = torch.randn(count, 1, dim) + 2.2 * torch.randn(count, 2, dim)
    return torch.nn.functional.normalize(vectors, dim=-1)


def faiss_search(queries: npt.NDArray[np.float32], gallery: npt.NDArray[np.float32]) -> Callable[[], object]:
    """Return a search for the first ten, on as many threads as torch has."""
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatIP(gallery.shape[1])
    index.add(gallery)
    return partial(index.search, queries, 10)


def rank_rows(run: Run, count: int = 50_000) -> Iterator[Row]:
    """Yield the row of all ranks of many instances among themselves, both directions of one pair of modalities."""
    count = min(count, 4096) if run.quick else count
    vectors = unit_vectors(count, DIM).to(run.device)
    batch = Batch(np.arange(count), vectors, torch.ones(count, 2, dtype=torch.bool, device=run.device))
    queries, gallery = (vectors[:, m].contiguous() for m in range(2))
    product = vectors.new_empty(BLOCK, BLOCK)
    calls: dict[str, Callable[[], object]] = {
        "ours": lambda: rank_batch(batch, ("a", "b")),
        "floor": lambda: torch.mm(queries[:BLOCK], gallery[:BLOCK].T, out=product),
        "a sort": lambda: (queries[:SORTED_QUERIES] @ gallery.T).argsort(dim=1, descending=True),
    }
    if run.device == "cpu" and find_spec("faiss") is not None:
        calls["faiss, one direction"] = faiss_search(queries[:FAISS_QUERIES].numpy(), gallery.numpy())
    seconds = in_turn(calls, repeats=2, warm=run.quick, timer=run.timer)
    seconds["floor"] *= count**2 / BLOCK**2
    seconds["a sort"] *= count / min(SORTED_QUERIES, count)
    note = "floor: the products alone, one for both directions"
    if "faiss, one direction" in seconds:
        seconds["faiss, one direction"] *= count / min(FAISS_QUERIES, count)
        seconds["faiss, both"] = 2 * seconds["faiss, one direction"]
    else:
        note += "; faiss is not installed"
    yield row_of(f"{count:,} x {count:,}, d = {DIM}", seconds, note)


def diagnose_rows(run: Run) -> Iterator[Row]:
    """Yield the rows of a diagnosis of float32 npy files; the floor is one read of their bytes, cached."""
    count, dim, modalities = 4096 if run.quick else 200_000, 256, 3
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

        calls = {
            "read and join": partial(read_dataset, [folder]),
            "the pass to a state": partial(state_of, dataset),
            "from a state to the diagnosis": partial(diagnose_state, state),
        }
        # What follows from a state takes the same however many instances there are.
        seconds = in_turn({"floor": read_raw, **calls}, repeats=1 if run.quick else 3, warm=False, timer=run.timer)
    size = f"{count:,} x {modalities} x {dim}"
    for name in calls:
        yield Row(f"{name}, {size}", seconds[name], {}, seconds["floor"])
