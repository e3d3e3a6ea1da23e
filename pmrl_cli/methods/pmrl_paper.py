"""PMRL as published: the leading singular value by softmax, and the instance contrast of leading directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pmrl_cli.methods.protocol import Method, setting
from pmrl_cli.terms.protocol import Term
from pmrl_cli.terms.published import PublishedPrincipal

__all__ = ["PmrlPaper"]


class PmrlPaper(Method):
    """Principled Multimodal Representation Learning, exactly the published value: see ``PublishedPrincipal``."""

    paper = "Liu, Xia, Ng, Chua, Principled Multimodal Representation Learning, 2025 (arXiv 2507.17343)"
    sign_aware = False
    spectrum_temperature = "temperature_spectrum"
    contrast_temperature = "temperature_instance"

    @dataclass(frozen=True)
    class Settings:
        """What ``--set`` can change."""

        temperature_spectrum: float = setting(0.05, "divides the singular values", low=1e-6)
        temperature_instance: float = setting(0.1, "divides the cosines of leading directions", low=1e-6)

    def terms(self) -> Sequence[tuple[float, Term]]:
        """Return the terms."""
        return [(1.0, PublishedPrincipal(**vars(self.settings)))]
