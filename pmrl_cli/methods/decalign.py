"""Decoupled alignment: a common and a unique vector of every modality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pmrl_cli.encoders.protocol import Encoder, Init
from pmrl_cli.encoders.two_part import TwoPart
from pmrl_cli.methods.protocol import Method, setting
from pmrl_cli.terms.common_unique import Decoupled, Heterogeneous, Homogeneous, Reconstruction
from pmrl_cli.terms.contrast import PairwiseContrast
from pmrl_cli.terms.protocol import Term

__all__ = ["DecAlign"]


class DecAlign(Method):
    """Common vectors that agree (InfoNCE, moments, discrepancy), unique ones that transport to each other.

    Departs: the task loss of the published method, which needs labels, is InfoNCE of the common vectors and the
    reconstruction of the components from both; any number of modalities; see ``terms.decoupling`` and
    ``terms.transport``. The transformer over sequences is left out: an instance has one vector a modality.
    """

    paper = "DecAlign: Hierarchical Cross-Modal Alignment for Decoupled Multimodal Representation Learning, ICLR 2026"
    closed_form_stands_in = False
    contrast_temperature = "temperature"

    @dataclass(frozen=True)
    class Settings:
        """What ``--set`` can change."""

        decoupling: float = setting(1.0, "of the separation of common and unique", low=0)
        heterogeneous: float = setting(0.1, "of the transport between unique vectors", low=0)
        homogeneous: float = setting(0.1, "of the moments of common vectors", low=0)
        reconstruction: float = setting(1.0, "of the reconstruction of the components", low=0)
        prototypes: int = setting(8, "components of the mixture of each modality", low=1, high=64)
        temperature: float = setting(
            0.1, "divides the cosines of common vectors at first; it is learned", low=0.015, high=1
        )

    def encoder(self, init: Init) -> Encoder:
        """Return adapters for both parts."""
        return TwoPart.beside(super().encoder(init), init)

    def terms(self) -> Sequence[tuple[float, Term]]:
        """Return the terms."""
        s = self.settings
        optional = [
            (s.decoupling, Decoupled()),
            (s.heterogeneous, Heterogeneous(s.prototypes)),
            (s.homogeneous, Homogeneous()),
        ]
        always = [(1.0, PairwiseContrast(temperature=s.temperature)), (s.reconstruction, Reconstruction())]
        return [*always, *(weighted for weighted in optional if weighted[0])]
