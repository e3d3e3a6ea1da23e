"""What training could still gain: the spectrum softmax and the contrast at the temperatures of a model."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from pmrl_cli.array_types import Array, Groups
from pmrl_cli.diagnosis.evidence import Evidence
from pmrl_cli.diagnosis.statistics.declared import detail, statistic
from pmrl_cli.retrieval.batches import Batch
from pmrl_cli.retrieval.similarity import cosine_blocks
from pmrl_cli.stats.gradients import gradient_shares, saturation, suggested_temperature
from pmrl_cli.stats.statistic import Statistic

__all__ = ["Negatives", "gradients_of", "negatives", "negatives_of"]


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
                own = logits.diagonal(piece.start).clone()
                logits.diagonal(piece.start).fill_(-torch.inf)
                most = logits.amax(1)
                logits -= most[:, None]
                weights = logits.exp()
                total = weights.sum(1)
                positive[rows[piece]] += (1 / (1 + total * (most - own).exp())).numpy()
                logits.diagonal(piece.start).zero_()
                entropy = total.log() - (weights * logits).sum(1) / total
                effective[rows[piece]] += entropy.exp().numpy()
            counted[rows] += 1
    if not sizes:
        return None
    asked = counted > 0
    mean_size = float(np.mean(sizes))

    def mean(sums: Array, chance: float, most: float) -> Statistic:
        return Statistic.mean(sums[asked] / counted[asked], groups[asked], within=(0, most), chance=chance)

    return Negatives(mean(effective, mean_size - 1, math.inf), mean(positive, 1 / mean_size, 1.0))


def gradients_of(evidence: Evidence) -> tuple[Statistic, ...]:
    """Return the share of the gradient that reaches each modality, by the spectrum of the model's objective."""
    assert evidence.training is not None
    return gradient_shares(evidence.batch, evidence.sample.groups, sign_aware=evidence.training["sign_aware"])


def negatives_of(evidence: Evidence) -> Negatives | None:
    """Return what the contrast of the model sees; None where it has no single temperature."""
    temperature = _temperature(evidence, "instance")
    return None if temperature is None else negatives(evidence.core_batch, evidence.core.groups, temperature)


def _temperature(evidence: Evidence, which: str) -> float | None:
    assert evidence.training is not None
    found: float | None = evidence.training["temperatures"][which]
    return found


@statistic(
    "gradient_share",
    "modality",
    formula="share of the gradient of sigma_1 along the sphere: |v_m| sqrt(|Zv|^2 - (z_m . Zv)^2) / (2 sigma_1) of "
    "the sign-aware spectrum, |v_m| sqrt(1 - sigma_1^2 v_m^2) of the plain one (pmrl-paper), v the loadings, over "
    "the sum of all modalities. One orthogonal to the others gets none",
    chance="1/k",
    range="[0, 1]",
    needs=["model"],
)
def _gradient_share(evidence: Evidence, m: int) -> Statistic:
    return evidence.once(gradients_of)[m]


@statistic(
    "saturation",
    "training",
    formula="mean of 1 - p_1 of the softmax over singular values at the model's temperature: what the spectrum "
    "loss can still gain",
    chance="1 - 1/k",
    range="[0, 1]",
    needs=["model"],
)
def _saturation(evidence: Evidence) -> Statistic:
    temperature = _temperature(evidence, "spectrum")
    if temperature is None:  # it follows the data and cannot saturate
        return Statistic.unknown("not_applicable", null="closed_form")
    return saturation(evidence.batch, evidence.sample.groups, temperature)


@statistic(
    "negatives_effective",
    "training",
    formula="exp of the entropy of the softmax over the negatives: of how many the contrast hears",
    chance="n - 1",
    range="[1, n - 1]",
    needs=["model"],
)
def _negatives_effective(evidence: Evidence) -> Statistic:
    found = evidence.once(negatives_of)
    return Statistic.unknown("not_applicable", null="closed_form") if found is None else found.effective


@statistic(
    "positive_probability",
    "training",
    formula="what the partner gets of that softmax",
    chance="1/n",
    range="[0, 1]",
    needs=["model"],
)
def _positive_probability(evidence: Evidence) -> Statistic:
    found = evidence.once(negatives_of)
    return Statistic.unknown("not_applicable", null="closed_form") if found is None else found.positive


_NUMBER = {"type": ["number", "null"]}


@detail("temperature", "training", about="of the spectrum softmax, null without one", schema=_NUMBER, needs=["model"])
def _spectrum_temperature(evidence: Evidence) -> float | None:
    return _temperature(evidence, "spectrum")


@detail(
    "temperature_suggested",
    "training",
    about="at which the leading singular value takes 9/10 of the softmax",
    schema=_NUMBER,
    needs=["model"],
)
def _temperature_suggested(evidence: Evidence) -> float | None:
    return suggested_temperature(evidence.batch)


@detail(
    "kept",
    "training",
    about="the evaluations whose weights the members of the model have",
    schema={
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "stage": {"type": "string"},
                "step": {"type": "integer", "minimum": 0},
                "epoch": {"type": "number", "minimum": 0},
            },
            "required": ["stage", "step", "epoch"],
            "additionalProperties": False,
        },
    },
    needs=["model"],
)
def _kept(evidence: Evidence) -> object:
    assert evidence.training is not None
    return evidence.training["kept"]


@detail(
    "refitted",
    "training",
    about="whether all of it was repeated with the validation instances",
    schema={"type": "boolean"},
    needs=["model"],
)
def _refitted(evidence: Evidence) -> object:
    assert evidence.training is not None
    return evidence.training["refitted"]


@detail(
    "history",
    "training",
    about="evaluations, one object each",
    schema={"type": "array", "items": {"type": "object"}},
    needs=["model"],
)
def _history(evidence: Evidence) -> object:
    assert evidence.training is not None
    return evidence.training["history"]
