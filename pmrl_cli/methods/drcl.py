"""DRCL: modalities of different instances share the targets of their classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Literal

import torch

from pmrl_cli.batch import Encoded, Inputs
from pmrl_cli.encoders.protocol import Encoder
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

    def criterion(self, encoder: Encoder, encoded: Encoded, inputs: Inputs) -> float | None:
        """Return the mean average precision by class, from every modality to every other."""
        assert inputs.labels is not None
        found = []
        known = inputs.present & (inputs.labels >= 0)[:, None]
        for m, n in permutations(range(known.shape[1]), 2):
            asking, gallery = known[:, m], known[:, n]
            cosines = encoded.vectors[asking, m] @ encoded.vectors[gallery, n].mT
            ranked = inputs.labels[gallery][cosines.argsort(dim=1, descending=True, stable=True)]
            right = (ranked == inputs.labels[asking][:, None]).double()
            answered = right.any(1)
            if bool(answered.any()):
                places = torch.arange(1, right.shape[1] + 1, device=right.device)
                precision = (right.cumsum(1) / places * right).sum(1) / right.sum(1).clamp_min(1)
                found.append(float(precision[answered].mean()))
        return sum(found) / max(1, len(found))

    def terms(self) -> Sequence[tuple[float, Term]]:
        """Return the terms."""
        return [(1.0, RecastConsistency(**vars(self.settings)))]
