"""PMRL, sign-aware and unsaturated: a leading singular value per instance, and a contrast of leading directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pmrl_cli.methods.protocol import Method, setting
from pmrl_cli.terms.principal import Principal
from pmrl_cli.terms.protocol import Term

__all__ = ["Pmrl"]


class Pmrl(Method):
    """After Principled Multimodal Representation Learning, on embeddings that start unaligned: see ``Principal``."""

    paper = "after Liu, Xia, Ng, Chua, Principled Multimodal Representation Learning, 2025 (arXiv 2507.17343)"
    contrast_temperature = "temperature_instance"

    @dataclass(frozen=True)
    class Settings:
        """What ``--set`` can change."""

        spectrum_weight: float = setting(0.1, "of the spectrum part", low=0)
        instance_weight: float = setting(1.0, "of the contrast of leading directions of two subsets", low=0)
        pairwise_weight: float = setting(1.0, "of the contrast of single modalities", low=0)
        temperature_instance: float = setting(
            0.1, "divides the cosines of both contrasts at first; it is learned", low=0.015, high=1
        )

    def terms(self) -> Sequence[tuple[float, Term]]:
        """Return the terms."""
        return [(1.0, Principal(**vars(self.settings)))]
