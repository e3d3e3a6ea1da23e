"""Leading-direction contrast: every modality against what the others of an instance share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pmrl_cli.methods.protocol import Method, setting
from pmrl_cli.terms.leave_one_out import LeaveOneOutContrast
from pmrl_cli.terms.protocol import Term
from pmrl_cli.terms.spectrum import SpectrumGap

__all__ = ["Ldc"]


class Ldc(Method):
    """Contrast with the leading direction of an instance's other modalities, and the spectrum part of ``pmrl``.

    Contrast with a consensus that holds the query itself leaks the answer; leaving one out does not. With two
    modalities the contrast is that of ``infonce``.
    """

    paper = (
        "this project, after Liu, Xia, Ng, Chua, Principled Multimodal Representation Learning, 2025 "
        "(arXiv 2507.17343)"
    )
    contrast_temperature = "temperature"

    @dataclass(frozen=True)
    class Settings:
        """What ``--set`` can change."""

        spectrum_weight: float = setting(0.3, "of the spectrum part", low=0)
        temperature: float = setting(0.1, "divides the cosines at first; it is learned", low=0.015, high=1)

    def terms(self) -> Sequence[tuple[float, Term]]:
        """Return the terms."""
        contrast = (1.0, LeaveOneOutContrast(temperature=self.settings.temperature))
        weight = self.settings.spectrum_weight
        return [contrast, (weight, SpectrumGap())] if weight else [contrast]
