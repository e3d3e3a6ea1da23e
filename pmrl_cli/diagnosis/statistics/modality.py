"""Statistics of the cloud of one modality: its cone, the dimensions it uses, how evenly it covers the sphere."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from pmrl_cli.array_types import Array
from pmrl_cli.diagnosis.evidence import Evidence
from pmrl_cli.diagnosis.state.summaries import Columns
from pmrl_cli.diagnosis.statistics.alignment import summary_statistic
from pmrl_cli.diagnosis.statistics.declared import detail, statistic
from pmrl_cli.retrieval.counting import pieces
from pmrl_cli.stats.modality import effective_dimension, mean_off_diagonal_cosine
from pmrl_cli.stats.statistic import Statistic, Status, clustered_error, rescaled

__all__ = ["cone", "effective_dimensions", "uniformity", "unit_loading"]


_EIGENVALUES = 512
_BLOCKS = 20  # of the jackknife
_TILE = 512  # products at once: they stay in cache


@statistic(
    "mean_cosine",
    "modality",
    formula="mean cosine between different instances: the cone",
    chance="0",
    range="[-1/(n-1), 1]",
)
def cone(evidence: Evidence, m: int) -> Statistic:
    """Return the mean cosine between different instances of a modality."""
    state, sample = evidence.state, evidence.sample
    count = int(state.counts[m, m])
    value = mean_off_diagonal_cosine(state.sums[m][m], count)
    if value is None:
        return Statistic.unknown(chance=0.0, n=count)
    kept = sample.present[:, m]
    along = sample.vectors[m][kept].astype(np.float64) @ (state.sums[m][m] / count)
    error = rescaled(clustered_error(2 * along, sample.groups[kept]), int(kept.sum()), count)
    return Statistic.normal(value, error, within=(-1 / (count - 1), 1), chance=0.0, n=count, null="closed_form")


@statistic(
    "uniformity",
    "modality",
    formula="log of the mean of exp(-2 |x - y|^2) over pairs of instances",
    chance="-4 + log 0F1(d/2; 4), that of the sphere",
    range="up to 0",
)
def uniformity(evidence: Evidence, m: int) -> Statistic:
    """Return how evenly a modality covers the sphere: log of the mean of exp(-2 |x - y|^2) over pairs of instances.

    0 for a point; for the uniform distribution, its least, -4 + log 0F1(d / 2; 4), which is the chance value.

    Source: Wang and Isola, "Understanding contrastive representation learning through alignment and uniformity on
        the hypersphere", ICML 2020.
    """
    sample = evidence.core
    kept = sample.present[:, m]
    vectors, groups = sample.vectors[m][kept], sample.groups[kept]
    n, half = len(vectors), vectors.shape[1] / 2
    term, total = 1.0, 1.0
    for j in range(1, 60):  # terms fall faster than 4^j / j!^2
        term *= 4 / (j * (half + j - 1))
        total += term
    chance = -4 + math.log(total)
    if n < 3:
        return Statistic.unknown(chance=chance, n=n, null="closed_form")
    near = _near_sums(torch.from_numpy(vectors))
    near -= np.exp(4 * np.square(vectors, dtype=np.float64).sum(1) - 4)  # itself
    near /= n - 1
    error = clustered_error(2 * near / near.mean(), groups)
    return Statistic.normal(
        math.log(near.mean()), error, within=(-math.inf, 0), chance=chance, n=n, null="closed_form"
    )


def _near_sums(unit: Tensor) -> Array:
    """Return (n,) sums of exp(-2 |x - y|^2) of each of (n, d) unit vectors with all, itself included."""
    near = np.zeros(len(unit))
    parts = list(pieces(len(unit), _TILE))
    for i, rows in enumerate(parts):
        for columns in parts[i:]:  # the matrix is symmetric
            kernel = (unit[rows] @ unit[columns].mT).double().mul_(4).sub_(4).exp_()
            near[rows] += kernel.sum(1).numpy()
            if rows != columns:
                near[columns] += kernel.sum(0).numpy()
    return near


@statistic(
    "participation_ratio",
    "modality",
    formula="(tr C)^2 / |C|^2 of the covariance of the different vectors, without bias however few: dimensions of "
    "equal variance the cloud is worth",
    chance="d where isotropic",
    range="[1, d] or so",
)
def effective_dimensions(evidence: Evidence, m: int) -> Statistic:
    """Return the debiased participation ratio of a modality; its interval by a jackknife of 20 blocks of groups.

    Equal vectors count once: rows that share one say nothing more of the cloud.
    The chance value is the number of columns: what an isotropic cloud has.
    """
    sample = evidence.sample
    kept = sample.present[:, m]
    _, first = np.unique(sample.relevance.items[kept, m], return_index=True)
    first.sort()
    vectors, groups = sample.vectors[m][kept][first].astype(np.float64), sample.groups[kept][first]
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


@statistic(
    "loading",
    "modality",
    formula="mean loading on the leading direction times sqrt(k): 1 if all modalities carry it alike",
    chance="shuffled pairs",
    range="[0, sqrt(k)]",
    needs=["space"],
)
def unit_loading(evidence: Evidence, m: int) -> Statistic:
    """Return the mean loading of a modality on the leading direction, times sqrt(k_i)."""
    k = len(evidence.names)
    null = evidence.null.loading[:, m]
    return summary_statistic(evidence.state.summaries, Columns(k).load[m], null, math.sqrt(k))


@detail(
    "eigenvalues",
    "modality",
    about=f"of its covariance, descending, at most {_EIGENVALUES}",
    schema={"type": "array", "items": {"type": "number"}},
)
def _eigenvalues(evidence: Evidence, m: int) -> Array:
    totals = evidence.totals[0]
    if totals.counts[m, m] < 2:
        return np.zeros(0)
    values = np.linalg.eigvalsh(totals.covariance(m, m))[::-1][:_EIGENVALUES]
    return np.asarray(np.maximum(values, 0), dtype=np.float64)
