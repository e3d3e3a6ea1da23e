"""Shuffled pairs: what the same vectors give when mispaired."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from pmrl_cli.retrieval.batches import Batch

__all__ = ["shuffle_pairs"]


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
