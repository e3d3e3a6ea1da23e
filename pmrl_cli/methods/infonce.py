"""InfoNCE over all pairs of modalities: the baseline to beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pmrl_cli.methods.protocol import Method, setting
from pmrl_cli.terms.contrast import PairwiseContrast
from pmrl_cli.terms.protocol import Term

__all__ = ["InfoNce"]


class InfoNce(Method):
    """Symmetric InfoNCE of every two modalities, over the whole batch: see ``PairwiseContrast``.

    Departs from the sources: starts at temperature .1 (there .07) and is masked.
    """

    paper = (
        "Tian, Krishnan, Isola, Contrastive Multiview Coding, ECCV 2020 (full graph); Radford et al., "
        "Learning Transferable Visual Models From Natural Language Supervision, ICML 2021 (symmetric)"
    )
    contrast_temperature = "temperature"

    @dataclass(frozen=True)
    class Settings:
        """What ``--set`` can change."""

        temperature: float = setting(0.1, "divides the cosines at first; it is learned", low=0.015, high=1)

    def terms(self) -> Sequence[tuple[float, Term]]:
        """Return the terms."""
        return [(1.0, PairwiseContrast(temperature=self.settings.temperature))]
