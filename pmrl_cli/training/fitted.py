"""What a fit leaves: the members of the space, and the record of how they came about."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pmrl_cli.ensemble import Member
from pmrl_cli.training.heldout import HeldOut
from pmrl_cli.training.loop import Progress, Schedule
from pmrl_cli.training.settings import FitSettings
from pmrl_cli.training.start import Setting

__all__ = ["Fitted", "Recipe"]


@dataclass(frozen=True)
class Recipe:
    """One run that was tried, and what came of it.

    Args:
        name: of its stage in the history.
        objective: that it trained on.
        setting: closed form that it started from.
        dropout: of its input scores.
        start: evaluation of the closed form.
        best: evaluation of the weights kept.
        learned: the objective's own trained parameters when it ended.
        steps: trained in the end: those of ``best``, or of the refit.
    """

    name: str
    objective: str
    setting: Setting
    dropout: float
    start: Progress
    best: Progress
    learned: dict[str, float]
    steps: int


@dataclass(frozen=True)
class Fitted:
    """A trained alignment and the record of how it came about.

    Args:
        names: modalities, in order.
        members: of the space, best first.
        settings: as asked.
        plan: schedule of the recipes.
        recipes: those of the members, in their order.
        tried: all, in the order they were tried.
        history: evaluations of every run, in order.
        held_out: retrieval of the members together on validation, before any refit.
        share: mean sigma_1^2 / k_i there.
        refitted: whether validation instances trained in the end.
        counts: instances per part (train, validation, test) as dealt, less those excluded, and ``distrusted`` (left
            out as mispaired).
        excluded: ``vectors`` and ``instances`` (of which a vector) left out of training and validation on request.
        ranked: validation instances that were ranked.
        seen: sorted 64-bit hashes (seed 0) of the ids that trained, and of those that only chose.
        inputs: what was fitted, by modality: rows, dim, digest.
        ids_digest: SHA-256 of the ids in order.
    """

    names: tuple[str, ...]
    members: tuple[Member, ...]
    settings: FitSettings
    plan: Schedule
    recipes: tuple[Recipe, ...]
    tried: tuple[Recipe, ...]
    history: tuple[Progress, ...]
    held_out: HeldOut
    share: float
    refitted: bool
    counts: dict[str, int]
    excluded: dict[str, int]
    ranked: int
    seen: dict[str, npt.NDArray[np.uint64]]
    inputs: dict[str, dict[str, object]]
    ids_digest: str

    @property
    def dim(self) -> int:
        """Dimension of the space."""
        return sum(recipe.setting.dim for recipe in self.recipes)

    @property
    def start(self) -> Progress:
        """Evaluation of the best closed form."""
        return max((recipe.start for recipe in self.tried), key=lambda line: line.mrr)
