"""GRAM: the volume that an instance's modalities span is small, that of mixed instances is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pmrl_cli.methods.protocol import Method, setting
from pmrl_cli.terms.gram import VolumeContrast
from pmrl_cli.terms.protocol import Term

__all__ = ["Gram"]


class Gram(Method):
    """Contrast of volumes from one modality to the others: see ``VolumeContrast``."""

    paper = (
        "Cicchetti, Grassucci, Sigillo, Comminiello, Gramian Multimodal Representation Learning and "
        "Alignment, ICLR 2025"
    )

    @dataclass(frozen=True)
    class Settings:
        """What ``--set`` can change."""

        anchor: int = setting(0, "index of the modality of the queries, in the order of pmrl inspect", low=0)
        temperature: float = setting(0.07, "divides the volumes at first; it is learned", low=0.015, high=1)

    def terms(self) -> Sequence[tuple[float, Term]]:
        """Return the terms."""
        return [(1.0, VolumeContrast(**vars(self.settings)))]
