"""InfoNCE of one fixed modality with each of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pmrl_cli.methods.protocol import Method, setting
from pmrl_cli.terms.contrast import PairwiseContrast
from pmrl_cli.terms.protocol import Term

__all__ = ["Anchor"]


class Anchor(Method):
    """Symmetric InfoNCE of the anchor with every other modality, over the whole batch: see ``PairwiseContrast``.

    An instance without the anchor is no positive; it is a negative where its modality is searched. Two modalities
    without the anchor are never compared: they agree only as far as both agree with it. Departs from the source: the
    anchor's adapter is trained too (there its encoder is frozen), both directions weigh the same, masked.
    """

    paper = "Girdhar et al., ImageBind: One Embedding Space To Bind Them All, CVPR 2023"
    contrast_temperature = "temperature"

    @dataclass(frozen=True)
    class Settings:
        """What ``--set`` can change."""

        anchor: int = setting(0, "index of the modality that every pair holds, in the order of pmrl inspect", low=0)
        temperature: float = setting(0.1, "divides the cosines at first; it is learned", low=0.015, high=1)

    def terms(self) -> Sequence[tuple[float, Term]]:
        """Return the terms."""
        return [(1.0, PairwiseContrast(**vars(self.settings)))]
