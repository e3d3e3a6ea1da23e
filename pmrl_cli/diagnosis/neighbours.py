"""Shared neighbours: whether the same instances are near each other in two modalities, beside its exact null."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch

from pmrl_cli.retrieval.similarity import nearest_cosines
from pmrl_cli.stats.statistic import Statistic, clustered_error, upper_tail

__all__ = ["shared_neighbours", "shared_neighbours_moments"]

Array = npt.NDArray[np.float64]


def _nearest(vectors: Array, neighbours: int) -> npt.NDArray[np.int64]:
    """Return (n, neighbours) indices of the nearest others by cosine, centred."""
    centred = vectors - vectors.mean(0)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = torch.from_numpy((centred / np.maximum(lengths, 1e-12)).astype(np.float32))
    found: npt.NDArray[np.int64] = nearest_cosines(unit, unit, neighbours, but_own=True)[1].numpy()
    return found


def shared_neighbours_moments(first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Return mean and variance, over all permutations, of the share of common neighbours of two graphs.

    Exact: the share is a sum of products of two adjacency matrices, whose permutation variance needs only how many
    pairs of edges in each graph share a source, a target, a source with a target, both, or nothing (Mantel, Cancer
    Research 27, 1967; Hubert and Schultz, British Journal of Mathematical and Statistical Psychology 29, 1976).

    Args:
        first: (n, k) neighbours of each instance, never itself; n at least 4.
        second: (n, k) likewise.
    """
    n, k = first.shape
    edges = n * k

    def kinds(graph: npt.NDArray[np.int64]) -> Array:
        sources, targets = np.repeat(np.arange(n), k), graph.ravel()
        into = np.bincount(targets, minlength=n).astype(np.float64)
        back = float(np.isin(sources * n + targets, targets * n + sources).sum())
        same_target = float((into * (into - 1)).sum())
        chained = float(into.sum() * k) - back  # i -> j and j -> l with l not i; counted once for each order
        same_source = float(n * k * (k - 1))
        touching = edges + back + same_source + same_target + 2 * chained
        return np.array([edges, back, same_source, same_target, 2 * chained, edges**2 - touching])

    two, three = n * (n - 1), n * (n - 1) * (n - 2)
    ways = np.array([two, two, three, three, 2 * three, three * (n - 3)], dtype=np.float64)
    mean = edges**2 / two
    variance = float((kinds(first) * kinds(second) / ways).sum()) - mean**2
    return mean / edges, max(variance, 0.0) / edges**2


def shared_neighbours(first: Array, second: Array, *, neighbours: int = 10) -> Statistic:
    """Return the share of common nearest neighbours beyond chance: (share - k/(n-1)) / (1 - k/(n-1)).

    Args:
        first: (n, a).
        second: (n, b).
        neighbours: k; a quarter of the instances if that is less.

    Source: Huh et al., "The Platonic representation hypothesis", ICML 2024 (mutual k-NN); departs: centred, and
        adjusted for chance.
    """
    n = len(first)
    k = min(neighbours, n // 4)
    if k < 1:
        return Statistic.unknown(chance=0.0, n=n, null="permutation")
    graphs = _nearest(first, k), _nearest(second, k)
    mean, variance = shared_neighbours_moments(*graphs)
    rows = np.arange(n)[:, None] * n
    common = np.isin(rows + graphs[0], rows + graphs[1]).sum(1) / k
    adjusted = (common - mean) / (1 - mean)
    p = upper_tail((float(common.mean()) - mean) / math.sqrt(variance)) if variance > 0 else None
    # Neighbourhoods overlap, so that instances are not quite independent: the spread under the null is the least.
    error = max(clustered_error(adjusted, np.arange(n)) or 0.0, math.sqrt(variance) / (1 - mean))
    return Statistic.normal(float(adjusted.mean()), error, within=(-1, 1), chance=0.0, p=p, n=n, null="permutation")
