"""Rows of exact ranks, both directions of a pair of modalities, against sorting and against a library's search."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec

import numpy as np
import torch
from rows import Call, Row, Run, in_turn, row_of
from torch import Tensor

from pmrl_cli.retrieval.batches import Batch
from pmrl_cli.retrieval.ranks import rank_batch

DIM = 512
ASKED = 1024
"""Queries that references are measured on, then scaled: all at once would not fit in memory."""
QUERIES, CANDIDATES = 2048, 512
NEAREST = 10
"""Neighbours that the library is asked for; it has no exact rank beyond them."""


def ranks_rows(run: Run) -> Iterator[Row]:
    """Yield the row of one size: all instances ask, among all."""
    count = 4_000 if run.quick else 50_000
    torch.manual_seed(0)
    shared = torch.randn(count, 1, DIM) + torch.randn(count, 2, DIM)
    embeddings = torch.nn.functional.normalize(shared, dim=2).to(run.device)
    batch = Batch(np.arange(count), embeddings, torch.ones(count, 2, dtype=torch.bool, device=run.device))
    first, second = (one.contiguous() for one in embeddings.unbind(1))
    calls: dict[str, Call] = {
        "ours": partial(rank_batch, batch, ("a", "b")),
        "argsort": partial(by_sorting, first, second),
        "floor": partial(products, first, second),
    }
    if run.device == "cpu" and find_spec("faiss") is not None:
        calls["faiss flat"] = partial(by_faiss, first.numpy(), second.numpy())
    found = in_turn(calls, repeats=3, warm=run.quick, timer=run.timer)
    for name in ("argsort", "faiss flat"):  # one direction of some queries
        if name in found:
            found[name] *= 2 * count / min(ASKED, count)
    yield row_of(f"{count:,} x {count:,}, d {DIM}", found)


def by_sorting(queries: Tensor, gallery: Tensor) -> Tensor:
    """Return the rank of the partner of some queries, from the whole order of the gallery."""
    order = (queries[:ASKED] @ gallery.T).argsort(dim=1, descending=True)
    return (order == torch.arange(len(order), device=order.device)[:, None]).int().argmax(dim=1)


def by_faiss(queries: np.ndarray, gallery: np.ndarray) -> object:
    """Return the nearest of some queries by exhaustive search."""
    import faiss

    faiss.omp_set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    index = faiss.IndexFlatIP(gallery.shape[1])
    index.add(gallery)
    return index.search(queries[:ASKED], NEAREST)


def products(queries: Tensor, gallery: Tensor) -> None:
    """Multiply all by all in blocks: the scores of both directions."""
    for some in queries.split(QUERIES):
        for few in gallery.split(CANDIDATES):
            some @ few.T
