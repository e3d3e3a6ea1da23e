"""Statistics of the cloud of one modality: its cone, the dimensions it uses, how evenly it covers the sphere."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch

from pmrl_cli.diagnosis.state.accumulate import State
from pmrl_cli.diagnosis.state.reservoir import ReservoirSample
from pmrl_cli.diagnosis.state.summaries import Columns
from pmrl_cli.diagnosis.statistics.alignment import summary_statistic
from pmrl_cli.retrieval.similarity import cosine_blocks
from pmrl_cli.stats.instances import InstanceStatistics
from pmrl_cli.stats.modality import effective_dimension, mean_off_diagonal_cosine
from pmrl_cli.stats.statistic import Statistic, Status, clustered_error, rescaled

__all__ = ["cone", "effective_dimensions", "uniformity", "unit_loading"]

Array = npt.NDArray[np.float64]

_BLOCKS = 20  # of the jackknife


def cone(state: State, chosen: ReservoirSample, m: int) -> Statistic:
    """Return the mean cosine between different instances of a modality."""
    count = int(state.counts[m, m])
    value = mean_off_diagonal_cosine(state.sums[m][m], count)
    if value is None:
        return Statistic.unknown(chance=0.0, n=count)
    kept = chosen.present[:, m]
    along = chosen.vectors[m][kept].astype(np.float64) @ (state.sums[m][m] / count)
    error = rescaled(clustered_error(2 * along, chosen.groups[kept]), int(kept.sum()), count)
    return Statistic.normal(value, error, within=(-1 / (count - 1), 1), chance=0.0, n=count, null="closed_form")


def uniformity(chosen: ReservoirSample, m: int) -> Statistic:
    """Return how evenly a modality covers the sphere: log of the mean of exp(-2 |x - y|^2) over pairs of instances.

    0 for a point; for the uniform distribution, its least, -4 + log 0F1(d / 2; 4), which is the chance value.

    Source: Wang and Isola, "Understanding contrastive representation learning through alignment and uniformity on
        the hypersphere", ICML 2020.
    """
    kept = chosen.present[:, m]
    vectors, groups = chosen.vectors[m][kept], chosen.groups[kept]
    n, half = len(vectors), vectors.shape[1] / 2
    term, total = 1.0, 1.0
    for j in range(1, 60):  # terms fall faster than 4^j / j!^2
        term *= 4 / (j * (half + j - 1))
        total += term
    chance = -4 + math.log(total)
    if n < 3:
        return Statistic.unknown(chance=chance, n=n, null="closed_form")
    near, unit = np.zeros(n), torch.from_numpy(vectors)
    for piece, cosines in cosine_blocks(unit, unit):
        near[piece] = (4 * cosines.double() - 4).exp_().sum(1).numpy()
    near -= np.exp(4 * np.square(vectors, dtype=np.float64).sum(1) - 4)  # itself
    near /= n - 1
    error = clustered_error(2 * near / near.mean(), groups)
    return Statistic.normal(
        math.log(near.mean()), error, within=(-math.inf, 0), chance=chance, n=n, null="closed_form"
    )


def effective_dimensions(chosen: ReservoirSample, m: int) -> Statistic:
    """Return the debiased participation ratio of a modality; its interval by a jackknife of 20 blocks of groups.

    The chance value is the number of columns: what an isotropic cloud has.
    """
    kept = chosen.present[:, m]
    vectors, groups = chosen.vectors[m][kept].astype(np.float64), chosen.groups[kept]
    chance = float(vectors.shape[1])
    total, second = vectors.sum(0), vectors.T @ vectors
    value = effective_dimension(len(vectors), total, second)
    if value is None:
        status: Status = "collapsed" if len(vectors) >= 4 else "n_too_small"
        return Statistic.unknown(status, chance=chance, n=len(vectors), null="closed_form")
    blocks = min(_BLOCKS, len(np.unique(groups)))
    left_out = []
    for block in range(blocks if blocks > 2 else 0):
        own = vectors[groups % blocks == block]
        left_out.append(effective_dimension(len(vectors) - len(own), total - own.sum(0), second - own.T @ own))
    error = None
    if left_out and None not in left_out:
        values = np.array(left_out, dtype=np.float64)
        error = math.sqrt((blocks - 1) / blocks * float(((values - values.mean()) ** 2).sum()))
    return Statistic.normal(value, error, within=(1, math.inf), chance=chance, n=len(vectors), null="closed_form")


def unit_loading(state: State, null: InstanceStatistics, m: int) -> Statistic:
    """Return the mean loading of a modality on the leading direction, times sqrt(k_i)."""
    k = len(state.header.names)
    return summary_statistic(state.summaries, Columns(k).load[m], null.loading[:, m], math.sqrt(k))
