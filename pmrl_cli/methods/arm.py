"""ARM: the modality that says little of a label is made to say more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from pmrl_cli.batch import Encoded, Inputs
from pmrl_cli.encoders.protocol import Encoder, Init
from pmrl_cli.encoders.weighted import Weighted
from pmrl_cli.methods.protocol import Method, setting
from pmrl_cli.terms.contrast import PairwiseContrast
from pmrl_cli.terms.protocol import Term
from pmrl_cli.terms.reinforcement import Reinforcement

__all__ = ["Arm"]


class Arm(Method):
    """A contrast over all pairs, and a label from every subset of the modalities: see ``Reinforcement``."""

    paper = (
        "after Gao et al., Asymmetric Reinforcing against Multi-modal Representation Bias, AAAI 2025 "
        "(arXiv 2501.01240)"
    )
    needs = frozenset({"labels"})
    closed_form_stands_in = False
    contrast_temperature = "temperature"

    @dataclass(frozen=True)
    class Settings:
        """What ``--set`` can change."""

        reinforcement: float = setting(1.0, "of the label against the contrast", low=0)
        balance: float = setting(0.1, "of the difference between the largest and least contribution", low=0)
        temperature: float = setting(
            0.1, "divides the cosines of the contrast at first; it is learned", low=0.015, high=1
        )

    def encoder(self, init: Init) -> Encoder:
        """Return adapters with a weight a modality."""
        return Weighted(init.maps, init.names, hidden=init.hidden, dropout=init.dropout)

    def criterion(self, encoder: Encoder, encoded: Encoded, inputs: Inputs) -> float | None:
        """Return how often the nearest class mean, of the other instances, is right; the mean over modalities."""
        assert inputs.labels is not None
        found = []
        for m in range(inputs.present.shape[1]):
            rows = inputs.present[:, m] & (inputs.labels >= 0)
            if bool(rows.any()):
                found.append(_nearest_mean(encoded.vectors[rows, m], inputs.labels[rows]))
        return sum(found) / max(1, len(found))

    def terms(self) -> Sequence[tuple[float, Term]]:
        """Return the terms."""
        settings = self.settings
        return [
            (1.0, PairwiseContrast(temperature=settings.temperature)),
            (settings.reinforcement, Reinforcement(balance=settings.balance)),
        ]


def _nearest_mean(vectors: Tensor, labels: Tensor) -> float:
    """Return the accuracy of the nearest class mean, each instance left out of that of its class."""
    members = functional.one_hot(labels).to(vectors.dtype)
    sums, counts = members.mT @ vectors, members.sum(0)
    others = (sums[labels] - vectors) / (counts[labels] - 1).clamp_min(1)[:, None]
    distances = torch.cdist(vectors, sums / counts.clamp_min(1)[:, None])
    own = (vectors - others).norm(dim=1)
    distances = distances.masked_fill(counts == 0, torch.inf).scatter(1, labels[:, None], own[:, None])
    return float((distances.argmin(1) == labels).double().mean())
