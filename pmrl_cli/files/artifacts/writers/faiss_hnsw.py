"""faiss, searched through a graph of near neighbours (HNSW): fast, and approximate.

Malkov and Yashunin, Efficient and Robust Approximate Nearest Neighbor Search Using Hierarchical Navigable Small World
Graphs, TPAMI 2020. Links and effort of building are faiss's defaults.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import faiss

from pmrl_cli.data.dataset import EmbeddedBlock
from pmrl_cli.files.artifacts.plan import ExportPlan
from pmrl_cli.files.artifacts.writers import Written
from pmrl_cli.files.artifacts.writers.faiss import write_indices

__all__ = ["write"]

LINKS = 32
"""Neighbours that each vector is linked to."""


def write(folder: Path, blocks: Iterator[EmbeddedBlock], plan: ExportPlan) -> Written:
    """Write the indices; see ``Write``. One thread builds them, or equal exports would not have equal bytes."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        return write_indices(
            lambda dim: faiss.IndexHNSWFlat(dim, LINKS, faiss.METRIC_INNER_PRODUCT), folder, blocks, plan
        )
    finally:
        faiss.omp_set_num_threads(threads)
