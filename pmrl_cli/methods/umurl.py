"""UmURL: a joint encoder that makes one vector of whatever an instance has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pmrl_cli.encoders.joint import Joint, Views
from pmrl_cli.encoders.protocol import Encoder, Init
from pmrl_cli.methods.protocol import Method, setting
from pmrl_cli.terms.protocol import Term
from pmrl_cli.terms.unified import JointContrast, UnifiedConsistency

__all__ = ["Umurl"]


class Umurl(Method):
    """Early fusion: see ``encoders.joint``, ``UnifiedConsistency`` and ``JointContrast``."""

    paper = (
        "Sun et al., Unified Multi-modal Unsupervised Representation Learning for Skeleton-based Action "
        "Understanding, ACM Multimedia 2023 (arXiv 2311.03106)"
    )
    closed_form_stands_in = False

    @dataclass(frozen=True)
    class Settings:
        """What ``--set`` can change."""

        consistency: float = setting(5.0, "of the differences within and between modalities", low=0)
        variance_weight: float = setting(5.0, "of the hinge on standard deviations below 1", low=0)
        contrast: float = setting(1.0, "of InfoNCE between single and fused vectors; 0 as published", low=0)
        noise: float = setting(0.3, "standard deviation added to the components in training", low=0)
        left_out: float = setting(0.3, "probability that a modality is left out of the fused view", low=0, high=1)

    def encoder(self, init: Init) -> Encoder:
        """Return the joint encoder."""
        views = Views(self.settings.noise, self.settings.left_out)
        return Joint(init.maps, init.names, hidden=init.hidden, dropout=init.dropout, views=views)

    def terms(self) -> Sequence[tuple[float, Term]]:
        """Return the terms."""
        settings = self.settings
        consistency = UnifiedConsistency(consistency=settings.consistency, variance_weight=settings.variance_weight)
        return [(1.0, consistency), *([(settings.contrast, JointContrast())] if settings.contrast else [])]
