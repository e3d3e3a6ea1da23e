"""The reservoir that costly statistics use, and its shuffled pairs: what the same vectors give when mispaired."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from pmrl_cli.data.dataset import Dataset
from pmrl_cli.data.ids import hash_ids
from pmrl_cli.retrieval.batches import Batch
from pmrl_cli.retrieval.evaluation import smallest_by_hash

__all__ = ["choose_reservoir", "shuffle_pairs"]


def choose_reservoir(
    dataset: Dataset,
    rows: npt.NDArray[np.int64],
    groups: npt.NDArray[np.int64] | None,
    *,
    limit: int,
    seed: int,
) -> npt.NDArray[np.int64]:
    """Return, ascending, at most ``limit`` of ``rows``, chosen by hash; whole groups where there are groups.

    The order of instances cannot change the choice. A group hashes as the smallest hash of its ids; one group
    larger than the limit is still taken whole.

    Args:
        dataset: where the ids are.
        rows: (n,) ascending.
        groups: (N,) group of each row of the data set, or None.
        limit: instances.
        seed: of the hash.
    """
    if groups is None or len(rows) <= limit:
        return smallest_by_hash(dataset, rows, limit, seed)
    hashes = hash_ids(dataset.ids.take(rows), seed)
    _, group, sizes = np.unique(groups[rows], return_inverse=True, return_counts=True)
    smallest = np.full(len(sizes), np.iinfo(np.uint64).max, dtype=np.uint64)
    np.minimum.at(smallest, group, hashes)
    order = np.argsort(smallest, kind="stable")
    kept = np.zeros(len(sizes), dtype=bool)
    kept[order[np.cumsum(sizes[order]) <= limit]] = True
    kept[order[0]] = True
    return rows[kept[group]]


def shuffle_pairs(batch: Batch, groups: npt.NDArray[np.int64], generator: np.random.Generator) -> Batch:
    """Permute every modality on its own among the instances that have it.

    Each modality keeps its vectors and each instance its presence pattern: only the pairing is lost. Instances
    that end up with two vectors of one group are left out, for those may be paired after all.

    Args:
        batch: the reservoir.
        groups: (B,) group of each instance (its own number where there are none).
        generator: source of the permutations.
    """
    embeddings = torch.zeros_like(batch.embeddings)
    present = batch.present.numpy()
    origin = np.full(present.shape, -1)
    for m in range(present.shape[1]):
        having = np.flatnonzero(present[:, m])
        moved = generator.permutation(having)
        embeddings[having, m] = batch.embeddings[moved, m]
        origin[having, m] = groups[moved]
    ordered = np.sort(origin, axis=1)
    keep = ~((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(1)
    return Batch(batch.rows[keep], embeddings[keep], batch.present[keep])
