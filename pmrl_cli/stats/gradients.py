"""What the spectrum loss can still gain, the temperature that would leave it something, and who gets the gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from pmrl_cli.array_types import Groups
from pmrl_cli.retrieval.batches import Batch
from pmrl_cli.spectrum import Spectrum, spectrum
from pmrl_cli.stats.statistic import Statistic, clustered_error

__all__ = ["gradient_shares", "saturation", "suggested_temperature", "tangent_gradients"]


_LEADING_SHARE = 0.9
"""Share of the softmax that the leading singular value takes at the suggested temperature."""


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
    return Statistic.mean(left, groups, within=(0, 1), chance=chance)


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


def tangent_gradients(found: Spectrum, present: Tensor, *, sign_aware: bool) -> Tensor:
    """Return the length of the gradient of sigma_1 along the sphere, for each modality: (B, K), 0 where absent.

    With loadings v, |v_m| sqrt(1 - sigma_1^2 v_m^2); a modality orthogonal to the others gets none. Sign-aware, where
    sigma_1^2 = v'(1 + G)v / 2 and s the sum of v: |v_m| sqrt(|Zv|^2 - (z_m . Zv)^2) / (2 sigma_1) with
    |Zv|^2 = 2 sigma_1^2 - s^2 and z_m . Zv = 2 sigma_1^2 v_m - s.

    Args:
        found: spectrum of (B, K, d) unit vectors.
        present: (B, K) bool.
        sign_aware: whether it is the sign-aware one.
    """
    sigma, loading = found.singular_values[:, :1].double(), found.loadings.double()
    if sign_aware:
        total = loading.sum(1, keepdim=True)
        radial = 2 * sigma.square() * loading - total
        lengths = (2 * sigma.square() - total.square() - radial.square()).clamp_min(0).sqrt() / (2 * sigma)
    else:
        lengths = (1 - sigma.square() * loading.square()).clamp_min(0).sqrt()
    reaching: Tensor = (loading.abs() * lengths).masked_fill(~present, 0)
    return reaching


def gradient_shares(batch: Batch, groups: Groups, *, sign_aware: bool) -> tuple[Statistic, ...]:
    """Return the share of the gradient of sigma_1 that reaches each modality; they sum to 1, 1 / k each by chance.

    Args:
        batch: instances with two modalities or more.
        groups: (B,).
        sign_aware: as the objective has it: the default one is, the published one is not.
    """
    found = spectrum(batch.embeddings.double(), batch.present, sign_aware=sign_aware)
    lengths = tangent_gradients(found, batch.present, sign_aware=sign_aware).numpy()
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
