"""What one instance says about alignment, from the spectrum of its modalities."""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from pmrl_cli.array_types import Array
from pmrl_cli.retrieval.batches import Batch
from pmrl_cli.spectrum import spectrum

__all__ = ["COLLAPSED", "InstanceStatistics", "adjusted_shares", "instance_statistics", "pairs_of", "shuffle_pairs"]


COLLAPSED = 1e-6
"""Room left above the null below which an adjusted value is noise."""

_LOADS = 0.1
"""Loadings beyond this count when asking whether the modalities of an instance point both ways."""


class InstanceStatistics(NamedTuple):
    """Statistics of B instances with two or more modalities; k_i is the number of an instance.

    Args:
        number: (B,) int64, k_i.
        rho: (B,) in [1/k_i, 1]: share of the leading eigenvalue, sigma_1^2 / k_i.
        signed: (B,) in [0, rho]: squared length of the mean of the unit vectors. Below rho where modalities
            share a line but not a direction.
        mixed: (B,) 1 where the leading direction has loadings of both signs, else 0.
        loading: (B, K) in [0, sqrt(k_i)]: |loading| * sqrt(k_i), 1 if all carry alike; NaN where absent.
        cosine: (B, P) in [-1, 1], of each pair in the order of ``pairs_of``; NaN where one is absent.
    """

    number: npt.NDArray[np.int64]
    rho: Array
    signed: Array
    mixed: Array
    loading: Array
    cosine: Array

    @staticmethod
    def join(parts: list[InstanceStatistics]) -> InstanceStatistics:
        """Return the statistics of several batches as one."""
        return InstanceStatistics(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def pairs_of(modalities: int) -> list[tuple[int, int]]:
    """Return the pairs (a, b), a < b."""
    return list(combinations(range(modalities), 2))


def instance_statistics(batch: Batch) -> InstanceStatistics:
    """Return the statistics of every instance of a batch; all must have two or more modalities."""
    embeddings, present = batch.embeddings, batch.present
    number = present.sum(1)
    found = spectrum(embeddings, present)
    loadings = found.loadings.double()
    both_ways = (loadings > _LOADS).any(1) & (loadings < -_LOADS).any(1)
    pairs = torch.tensor(pairs_of(present.shape[1])).T
    cosine = torch.bmm(embeddings, embeddings.mT)[:, pairs[0], pairs[1]].double()
    return InstanceStatistics(
        number.numpy(),
        (found.singular_values[:, 0].double().square() / number).numpy(),
        (embeddings.sum(1).double().square().sum(1) / number.square()).numpy(),
        both_ways.double().numpy(),
        (loadings.abs() * number.sqrt()[:, None]).masked_fill(~present, torch.nan).numpy(),
        cosine.masked_fill(~(present[:, pairs[0]] & present[:, pairs[1]]), torch.nan).numpy(),
    )


def adjusted_shares(found: InstanceStatistics, null: InstanceStatistics) -> Array:
    """Return (rho_i - rho_0) / (1 - rho_0) of each instance, rho_0 that of its number of modalities; NaN unknown."""
    adjusted = np.full(len(found.rho), np.nan)
    for number in np.unique(found.number):
        of_number = null.rho[null.number == number]
        room = 1 - of_number.mean() if len(of_number) else 0.0
        if room >= COLLAPSED:
            chosen = found.number == number
            adjusted[chosen] = 1 - (1 - found.rho[chosen]) / room
    return adjusted


def shuffle_pairs(batch: Batch, groups: npt.NDArray[np.int64], generator: np.random.Generator) -> Batch:
    """Permute every modality on its own among the instances that have it.

    Each modality keeps its vectors and each instance its presence pattern: only the pairing is lost. Instances
    that end up with two vectors of one group are left out, for those may be paired after all.

    Args:
        batch: the reservoir.
        groups: (B,) group of each instance (its own number where there are none).
        generator: source of the permutations.
    """
    present = batch.present.numpy()
    source = np.full(present.shape, -1)
    for m in range(present.shape[1]):
        having = np.flatnonzero(present[:, m])
        source[having, m] = generator.permutation(having)
    origin = np.where(present, groups[source], -1)
    ordered = np.sort(origin, axis=1)
    keep = ~((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(1)
    # An absent vector is zero, as its instance has it.
    source = np.where(present, source, np.arange(len(source))[:, None])[keep]
    modalities, width = batch.embeddings.shape[1:]
    places = torch.from_numpy(source * modalities + np.arange(modalities)).flatten()
    embeddings = batch.embeddings.reshape(-1, width).index_select(0, places).view(-1, modalities, width)
    return Batch(batch.rows[keep], embeddings, batch.present[keep])
