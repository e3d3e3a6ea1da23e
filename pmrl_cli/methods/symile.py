"""Symile: contrast of the multilinear inner product of all modalities with that of shuffled instances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pmrl_cli.methods.protocol import Method, setting
from pmrl_cli.terms.protocol import Term
from pmrl_cli.terms.symile import MultilinearContrast

__all__ = ["Symile"]


class Symile(Method):
    """Contrast of the multilinear inner product with each modality as the anchor: see ``MultilinearContrast``."""

    paper = "Saporta, Puli, Goldstein, Ranganath, Contrasting with Symile, NeurIPS 2024"

    @dataclass(frozen=True)
    class Settings:
        """What ``--set`` can change."""

        temperature: float = setting(0.1, "of the scaled product at first; it is learned", low=0.015, high=1)

    def terms(self) -> Sequence[tuple[float, Term]]:
        """Return the terms."""
        return [(1.0, MultilinearContrast(temperature=self.settings.temperature))]
