"""TRIANGLE: the area between three modalities of an instance is small, that of mixed instances is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pmrl_cli.methods.protocol import Method, setting
from pmrl_cli.terms.protocol import Term
from pmrl_cli.terms.triangle import AreaContrast

__all__ = ["Triangle"]


class Triangle(Method):
    """Contrast of areas from one modality to the other two: see ``AreaContrast``."""

    paper = (
        "Cicchetti, Grassucci, Comminiello, A TRIANGLE Enables Multimodal Alignment Beyond Cosine "
        "Similarity, NeurIPS 2025"
    )

    @dataclass(frozen=True)
    class Settings:
        """What ``--set`` can change."""

        anchor: int = setting(0, "index of the modality of the queries, in the order of pmrl inspect", low=0)
        temperature: float = setting(0.07, "divides the areas at first; it is learned", low=0.015, high=1)

    def terms(self) -> Sequence[tuple[float, Term]]:
        """Return the terms."""
        return [(1.0, AreaContrast(**vars(self.settings)))]
