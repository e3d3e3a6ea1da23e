"""What training would still feel: saturation of the spectrum softmax, its temperature, and who gets the gradient."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pmrl_cli.diagnosis.pairing import clustered_error
from pmrl_cli.diagnosis.statistic import Statistic
from pmrl_cli.retrieval.batches import Batch
from pmrl_cli.spectrum import Spectrum, spectrum

__all__ = [
    "Negatives",
    "gradient_shares",
    "negatives",
    "saturation",
    "suggested_temperature",
    "tangent_gradients",
    "training_section",
]

Array = npt.NDArray[np.float64]
Groups = npt.NDArray[np.int64]

_LEADING_SHARE = 0.9
"""Share of the softmax that the leading singular value takes at the suggested temperature."""

_QUERIES = 1024


def _numbers(batch: Batch) -> Tensor:
    return batch.present.sum(1).clamp_min(2).double()


def saturation(batch: Batch, groups: Groups, temperature: float) -> Statistic:
    """Return the mean of 1 - p_1, p = softmax(sigma / temperature): what the spectrum loss can still gain from.

    By chance (equal singular values) 1 - 1 / k. Below .01 the published objective is solved in numbers, whatever
    the geometry.

    Args:
        batch: instances with two modalities or more.
        groups: (B,).
        temperature: of the spectrum, > 0.

    Source: Liu et al., "Principled Multimodal Representation Learning", 2025 (arXiv 2507.17343): its spectrum part
        is -log p_1.
    """
    values = spectrum(batch.embeddings.double(), batch.present).singular_values
    rank = torch.arange(values.shape[1])
    logits = (values / temperature).masked_fill(rank >= _numbers(batch)[:, None], -torch.inf)
    left = 1 - logits.softmax(1)[:, 0].numpy()
    chance = float((1 - 1 / _numbers(batch)).mean())
    error = clustered_error(left, groups)
    n = len(left)
    return Statistic.normal(float(left.mean()), error, within=(0, 1), chance=chance, n=n, null="closed_form")


def suggested_temperature(batch: Batch) -> float | None:
    """Return the temperature at which the leading singular value takes nine tenths of the softmax.

    It is (sigma_1 - sigma_2) / ln(9 (k - 1)) of an instance with k modalities, the others alike; the mean over
    instances. None where all singular values are equal.

    Args:
        batch: instances with two modalities or more.
    """
    values = spectrum(batch.embeddings.double(), batch.present).singular_values
    odds = _LEADING_SHARE / (1 - _LEADING_SHARE)
    found = ((values[:, 0] - values[:, 1]) / (odds * (_numbers(batch) - 1)).log()).mean()
    return float(found) if len(values) and found > 0 else None


def tangent_gradients(found: Spectrum, present: Tensor, *, lifted: bool) -> Tensor:
    """Return the length of the gradient of sigma_1 along the sphere, for each modality: (B, K), 0 where absent.

    With loadings v, |v_m| sqrt(1 - sigma_1^2 v_m^2); a modality orthogonal to the others gets none. Lifted, where
    sigma_1^2 = v'(1 + G)v / 2 and s the sum of v: |v_m| sqrt(|Zv|^2 - (z_m . Zv)^2) / (2 sigma_1) with
    |Zv|^2 = 2 sigma_1^2 - s^2 and z_m . Zv = 2 sigma_1^2 v_m - s.

    Args:
        found: spectrum of (B, K, d) unit vectors.
        present: (B, K) bool.
        lifted: whether it is the lifted one.
    """
    sigma, loading = found.singular_values[:, :1].double(), found.loadings.double()
    if lifted:
        total = loading.sum(1, keepdim=True)
        radial = 2 * sigma.square() * loading - total
        lengths = (2 * sigma.square() - total.square() - radial.square()).clamp_min(0).sqrt() / (2 * sigma)
    else:
        lengths = (1 - sigma.square() * loading.square()).clamp_min(0).sqrt()
    reaching: Tensor = (loading.abs() * lengths).masked_fill(~present, 0)
    return reaching


def gradient_shares(batch: Batch, groups: Groups, *, lifted: bool) -> tuple[Statistic, ...]:
    """Return the share of the gradient of sigma_1 that reaches each modality; they sum to 1, 1 / k each by chance.

    Args:
        batch: instances with two modalities or more.
        groups: (B,).
        lifted: as the objective has it: the default one takes the lifted spectrum, the published one does not.
    """
    found = spectrum(batch.embeddings.double(), batch.present, lifted=lifted)
    lengths = tangent_gradients(found, batch.present, lifted=lifted).numpy()
    total = lengths.sum()
    n, modalities = lengths.shape
    chance = 1 / modalities
    if total <= n * 1e-6:  # every instance is a point of rest
        return tuple(
            Statistic.unknown("collapsed", chance=chance, n=n, null="closed_form") for _ in range(modalities)
        )
    shares = lengths.sum(0) / total
    influence = (lengths - shares * lengths.sum(1, keepdims=True)) / (total / n)
    return tuple(
        Statistic.normal(
            float(shares[m]),
            clustered_error(influence[:, m], groups),
            within=(0, 1),
            chance=chance,
            n=n,
            null="closed_form",
        )
        for m in range(modalities)
    )


@dataclass(frozen=True)
class Negatives:
    """What the instance contrast sees at its temperature.

    Args:
        effective: exp of the entropy of the softmax over the negatives: from 1 (one stands for all) to n - 1. Few
            are a temperature that is too low, or hubs.
        positive: mean probability of the partner; by chance 1 / n. Near 0 the temperature is too high.
    """

    effective: Statistic
    positive: Statistic


def negatives(batch: Batch, groups: Groups, temperature: float) -> Negatives | None:
    """Return how many negatives count and how probable partners are, the mean over directions between two modalities.

    All instances of the batch that have a modality are its candidates. None where no instance has two others beside
    it.

    Args:
        batch: unit vectors.
        groups: (B,).
        temperature: of the instance contrast, > 0.
    """
    n, modalities = batch.present.shape
    effective, positive, counted = np.zeros(n), np.zeros(n), np.zeros(n)
    sizes = []
    for a in range(modalities):
        for b in range(modalities):
            rows = np.flatnonzero(batch.present[:, [a, b]].all(1).numpy())
            if a == b or len(rows) < 3:
                continue
            queries, candidates = batch.embeddings[rows, a], batch.embeddings[rows, b]
            sizes.append(len(rows))
            for start in range(0, len(rows), _QUERIES):
                piece = slice(start, start + _QUERIES)
                logits = (queries[piece] @ candidates.mT).double() / temperature
                positive[rows[piece]] += logits.softmax(1).diagonal(start).numpy()
                logits.diagonal(start).fill_(-torch.inf)
                logs = logits.log_softmax(1)
                logs.diagonal(start).zero_()
                entropy = -(logs.exp() * logs).sum(1)
                effective[rows[piece]] += entropy.exp().numpy()
            counted[rows] += 1
    if not sizes:
        return None
    asked = counted > 0
    mean_size = float(np.mean(sizes))

    def mean(sums: Array, chance: float, most: float) -> Statistic:
        values = sums[asked] / counted[asked]
        error = clustered_error(values, groups[asked])
        value = float(values.mean())
        return Statistic.normal(value, error, within=(0, most), chance=chance, n=len(values), null="closed_form")

    return Negatives(mean(effective, mean_size - 1, math.inf), mean(positive, 1 / mean_size, 1.0))


def training_section(batch: Batch, groups: Groups, training: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``training`` section.

    Args:
        batch: the reservoir as the model embeds it.
        groups: (B,).
        training: how the model was trained (``pmrl.training/1``). Where its spectrum temperature is None it follows
            the data and cannot saturate.
    """
    temperatures = training["temperatures"]
    adaptive = Statistic.unknown("not_applicable", null="closed_form")
    instance = temperatures["instance"]
    seen = None if instance is None else negatives(batch, groups, instance)
    spectral = temperatures["spectrum"]
    return {
        "temperature": spectral,
        "saturation": adaptive if spectral is None else saturation(batch, groups, spectral),
        "temperature_suggested": suggested_temperature(batch),
        "negatives_effective": adaptive if seen is None else seen.effective,
        "p_positive": adaptive if seen is None else seen.positive,
        **{key: training[key] for key in ("kept", "refitted", "history")},
    }
