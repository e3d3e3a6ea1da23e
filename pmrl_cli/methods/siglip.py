"""Pairwise sigmoid loss over all pairs of modalities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pmrl_cli.methods.protocol import Method, setting
from pmrl_cli.terms.protocol import Term
from pmrl_cli.terms.siglip import PairwiseSigmoid

__all__ = ["SigLip"]


class SigLip(Method):
    """Every (instance, instance) of two modalities is its own yes or no: see ``PairwiseSigmoid``."""

    paper = "Zhai, Mustafa, Kolesnikov, Beyer, Sigmoid Loss for Language Image Pre-Training, ICCV 2023"

    @dataclass(frozen=True)
    class Settings:
        """What ``--set`` can change."""

        temperature: float = setting(0.1, "divides the cosines at first; it is learned", low=0.015, high=1)
        bias: float = setting(-10.0, "added to the logits at first; it is learned")

    def terms(self) -> Sequence[tuple[float, Term]]:
        """Return the terms."""
        return [(1.0, PairwiseSigmoid(**vars(self.settings)))]
