"""What training could still gain: the spectrum softmax and the contrast at the temperatures of a model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pmrl_cli.retrieval.batches import Batch
from pmrl_cli.retrieval.similarity import cosine_blocks
from pmrl_cli.stats.gradients import saturation, suggested_temperature
from pmrl_cli.stats.statistic import Statistic, clustered_error

__all__ = ["Negatives", "negatives", "training_section"]

Array = npt.NDArray[np.float64]
Groups = npt.NDArray[np.int64]


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
            for piece, cosines in cosine_blocks(queries, candidates):
                logits = cosines.double() / temperature
                positive[rows[piece]] += logits.softmax(1).diagonal(piece.start).numpy()
                logits.diagonal(piece.start).fill_(-torch.inf)
                logs = logits.log_softmax(1)
                logs.diagonal(piece.start).zero_()
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
