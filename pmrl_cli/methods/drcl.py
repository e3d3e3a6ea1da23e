"""DRCL: modalities of different instances meet at the targets of their classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pmrl_cli.methods.protocol import Method, setting
from pmrl_cli.terms.protocol import Term
from pmrl_cli.terms.recast import RecastConsistency

__all__ = ["Drcl"]


class Drcl(Method):
    """Labels and no pairs: see ``RecastConsistency``."""

    paper = (
        "Pu et al., Deep Reversible Consistency Learning for Cross-modal Retrieval, IEEE Transactions on Multimedia "
        "2025 (arXiv 2501.05686)"
    )
    needs = frozenset({"labels", "unpaired"})
    closed_form_stands_in = False

    @dataclass(frozen=True)
    class Settings:
        """What ``--set`` can change."""

        prior: Literal["learned", "random"] = setting("learned", "W: of the modality that learns best, or drawn")
        inverse: Literal["pinv", "transpose", "polar"] = setting("pinv", "of W, whose rows are the targets")
        shape_weight: float = setting(0.1, "of the differences of cosines", low=0)
        distance_weight: float = setting(0.1, "of the squared distance from the targets", low=0)
        class_weight: float = setting(1.0, "of the generalised cross-entropy", low=0)
        keep: float = setting(0.9, "of each instance, when another is mixed in", low=0.5, high=1)
        ramp: int = setting(200, "steps in which the cross-entropy turns into the absolute error", low=0)

    def terms(self) -> Sequence[tuple[float, Term]]:
        """Return the terms."""
        return [(1.0, RecastConsistency(**vars(self.settings)))]
