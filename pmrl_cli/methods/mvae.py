"""Multimodal variational autoencoder with iterative amortised inference: fills in the modalities that are missing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pmrl_cli.batch import Encoded, Inputs
from pmrl_cli.encoders.protocol import Encoder, Init
from pmrl_cli.encoders.variational import Variational, imputer_of
from pmrl_cli.methods.protocol import Method, setting
from pmrl_cli.terms.contrast import PairwiseContrast
from pmrl_cli.terms.evidence import RefinedEvidence
from pmrl_cli.terms.protocol import Term

__all__ = ["Mvae"]


class Mvae(Method):
    """The components of all modalities from one latent vector, whose posterior is refined while training.

    The vectors are the means of the posteriors of single modalities; InfoNCE between them makes those
    of different instances differ, which the bound alone does not ask for. Departs further: see ``encoders.gaussian``.
    """

    paper = "Oshima, Suzuki, Matsuo, Multimodal VAE with iterative amortised inference, 2024 (arXiv 2410.11403)"
    closed_form_stands_in = False
    start_competes = True
    reads_sample = True
    linear_components = True
    contrast_temperature = "temperature"

    @dataclass(frozen=True)
    class Settings:
        """What ``--set`` can change."""

        iterations: int = setting(5, "of refinement", low=1, high=50)
        beta: float = setting(1.0, "of the divergence from the prior", low=0)
        distillation: float = setting(1.0, "of each modality's posterior towards the refined one", low=0)
        contrast: float = setting(0.1, "of InfoNCE between the vectors", low=0)
        hidden: int = setting(128, "width of the networks", low=1, high=4096)
        temperature: float = setting(0.1, "divides the cosines at first; it is learned", low=0.015, high=1)

    def encoder(self, init: Init) -> Encoder:
        """Return the encoders and decoders."""
        return Variational.from_init(init, self.settings.hidden)

    def criterion(self, encoder: Encoder, encoded: Encoded, inputs: Inputs) -> float | None:
        """Return the log density of a modality given the others of the instance, in nats a component."""
        imputer = imputer_of(encoder)
        assert imputer is not None
        densities, counts = 0.0, 0
        for m, wanted in enumerate(inputs.components):
            rows = inputs.present[:, m] & (inputs.present.sum(1) > 1)
            if not bool(rows.any()):
                continue
            present = inputs.present[rows].clone()
            present[:, m] = False
            others = Inputs([c[rows] * present[:, i, None] for i, c in enumerate(inputs.components)], present)
            imputed = imputer.impute(others)
            deviation = imputed.deviations[m]
            errors = (wanted[rows] - imputed.components[m]) / deviation
            densities -= float((errors.square() / 2 + deviation.log() + math.log(2 * math.pi) / 2).sum())
            counts += int(rows.sum()) * wanted.shape[1]
        return densities / counts if counts else None

    def terms(self) -> Sequence[tuple[float, Term]]:
        """Return the terms."""
        s = self.settings
        evidence = RefinedEvidence(iterations=s.iterations, beta=s.beta, distillation=s.distillation, hidden=s.hidden)
        contrast = [(s.contrast, PairwiseContrast(temperature=s.temperature))] if s.contrast else []
        return [(1.0, evidence), *contrast]
