"""VICReg over all pairs of modalities: agreement without negatives, kept from collapse by its spread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pmrl_cli.methods.protocol import Method, setting
from pmrl_cli.terms.protocol import Term
from pmrl_cli.terms.vicreg import VarianceInvarianceCovariance

__all__ = ["VicReg"]


class VicReg(Method):
    """Invariance of every two modalities, variance and covariance of each: see ``VarianceInvarianceCovariance``."""

    paper = (
        "Bardes, Ponce, LeCun, VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised "
        "Learning, ICLR 2022"
    )

    @dataclass(frozen=True)
    class Settings:
        """What ``--set`` can change."""

        invariance_weight: float = setting(25.0, "of the invariance", low=0)
        variance_weight: float = setting(25.0, "of the variance hinge", low=0)
        covariance_weight: float = setting(1.0, "of the covariance", low=0)

    def terms(self) -> Sequence[tuple[float, Term]]:
        """Return the terms."""
        return [(1.0, VarianceInvarianceCovariance(**vars(self.settings)))]
