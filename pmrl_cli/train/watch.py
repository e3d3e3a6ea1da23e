"""Statistics of ``pmrl diagnose`` on the held-out instances, fast enough for every evaluation of a fit."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from pmrl_cli.retrieval.batches import Batch
from pmrl_cli.stats.gradients import gradient_shares, saturation
from pmrl_cli.stats.instances import adjusted_shares, instance_statistics, shuffle_pairs
from pmrl_cli.stats.modality import effective_dimension
from pmrl_cli.stats.statistic import Statistic

__all__ = ["held_out_statistics"]

WATCHED = 256
"""Instances, evenly spaced, at most, whose statistics make a curve: no choice reads them, and those of all took as
long as the ranks that choose."""


def held_out_statistics(
    embeddings: Tensor,
    present: Tensor,
    names: Sequence[str],
    *,
    seed: int,
    temperature: float | None = None,
    sign_aware: bool = True,
) -> dict[str, float]:
    """Return the statistics of one evaluation by name, in the order of names; what is not known is left out.

    Args:
        embeddings: (N, K, d) unit vectors where present.
        present: (N, K) bool, two or more each.
        names: of the K modalities.
        seed: of the shuffled pairs: the same at every evaluation, so that a curve shows the training alone.
        temperature: of the objective's softmax over singular values, if it has a fixed one.
        sign_aware: whether the objective takes the sign-aware spectrum.

    Returns: ``A`` (adjusted alignment), ``signed``, ``rho_q05``, ``rho_q50`` and ``rho_q95`` (quantiles of
        sigma_1^2 / k), ``saturation`` (mean 1 - p_1 of the softmax, with a temperature), and of each modality
        ``load.NAME``, ``grad_share.NAME`` and ``pr_deb.NAME``.
    """
    spaced = slice(None, None, -(-max(1, len(embeddings)) // WATCHED))
    embeddings, present = embeddings[spaced].float().cpu(), present[spaced].cpu()
    if len(embeddings) == 0:
        return {}
    batch = Batch(np.arange(len(embeddings)), embeddings, present)
    found = instance_statistics(batch)
    shuffled = shuffle_pairs(batch, batch.rows, np.random.default_rng(seed))
    adjusted = adjusted_shares(found, instance_statistics(shuffled))
    statistics = {"A": _mean(adjusted), "signed": float(found.signed.mean())}
    for percent, value in zip((5, 50, 95), np.quantile(found.rho, (0.05, 0.5, 0.95)), strict=True):
        statistics[f"rho_q{percent:02}"] = float(value)
    if temperature is not None:
        statistics["saturation"] = _value(saturation(batch, batch.rows, temperature))
    shares = gradient_shares(batch, batch.rows, sign_aware=sign_aware)
    for m, (name, share) in enumerate(zip(names, shares, strict=True)):
        statistics[f"loading.{name}"] = _mean(found.loading[:, m])
        statistics[f"gradient_share.{name}"] = _value(share)
        vectors = embeddings[present[:, m], m].double()
        # The product in torch: NumPy's threads wait for work by spinning, which costs a training step more than it.
        moments = vectors.sum(0).numpy(), (vectors.T @ vectors).numpy()
        cloud = effective_dimension(len(vectors), *moments)
        if cloud is not None:
            statistics[f"participation_ratio.{name}"] = cloud
    return {name: value for name, value in sorted(statistics.items()) if math.isfinite(value)}


def _value(statistic: Statistic) -> float:
    return math.nan if statistic.value is None else statistic.value


def _mean(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan
