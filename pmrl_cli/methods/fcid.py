"""FCID: discrete codes that the modalities of an instance share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import cast

import torch

from pmrl_cli.batch import Encoded, Inputs
from pmrl_cli.encoders.codebook import Codebook
from pmrl_cli.encoders.discrete import Discrete
from pmrl_cli.encoders.protocol import Encoder, Init
from pmrl_cli.methods.protocol import Method, setting
from pmrl_cli.terms.contrast import PairwiseContrast
from pmrl_cli.terms.protocol import Term
from pmrl_cli.terms.shared_codes import SharedCodes

__all__ = ["Fcid"]


class Fcid(Method):
    """A contrast over all pairs and one codebook for all modalities: see ``SharedCodes`` and ``Codebook``."""

    paper = (
        "Huang et al., Unlocking the Potential of Multimodal Unified Discrete Representation through Training-Free "
        "Codebook Optimization and Hierarchical Alignment, 2024 (arXiv 2403.05168)"
    )
    closed_form_stands_in = False
    contrast_temperature = "temperature"

    @dataclass(frozen=True)
    class Settings:
        """What ``--set`` can change."""

        codes: int = setting(64, "number of codes", low=2)
        temperature: float = setting(
            0.1, "divides the cosines of the contrast at first; it is learned", low=0.015, high=1
        )
        code_temperature: float = setting(0.1, "divides the distances to the codes", low=0.01)
        information: float = setting(1.0, "of the bound on what general and specific vectors share", low=0)
        reconstruction: float = setting(1.0, "of the reconstruction from code and specific vector", low=0)
        patience: int = setting(20, "steps unused after which a code starts again", low=1)

    def encoder(self, init: Init) -> Encoder:
        """Return adapters with a codebook."""
        codebook = Codebook(self.settings.codes, init.maps[0].shape[1], patience=self.settings.patience)
        return Discrete(init.maps, init.names, codebook, hidden=init.hidden, dropout=init.dropout)

    def criterion(self, encoder: Encoder, encoded: Encoded, inputs: Inputs) -> float | None:
        """Return how often two modalities of an instance have one code, times the entropy of the codes (nats).

        Retrieval would stop a fit as soon as the vectors agree, before the codes have settled; codes that are all one
        have no entropy.
        """
        nearest = cast("Discrete", encoder).codebook.nearest(encoded.vectors)
        rates = []
        for a, b in combinations(range(inputs.present.shape[1]), 2):
            both = inputs.present[:, a] & inputs.present[:, b]
            if bool(both.any()):
                rates.append(float((nearest[both, a] == nearest[both, b]).double().mean()))
        uses = torch.bincount(nearest[inputs.present]).double()
        shares = uses[uses > 0] / uses.sum()
        return sum(rates) / max(1, len(rates)) * float(-(shares * shares.log()).sum())

    def terms(self) -> Sequence[tuple[float, Term]]:
        """Return the terms."""
        settings = self.settings
        codes = SharedCodes(
            temperature=settings.code_temperature,
            information=settings.information,
            reconstruction=settings.reconstruction,
        )
        return [(1.0, PairwiseContrast(temperature=settings.temperature)), (1.0, codes)]
