"""The result of a fit: the members of the space, and the record of how they came about."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pmrl_cli.closed_form.init import GccaConfig
from pmrl_cli.methods import method_class
from pmrl_cli.methods.protocol import Method
from pmrl_cli.model.members import Member
from pmrl_cli.train.heldout import HeldOut
from pmrl_cli.train.progress import CRITERION, Progress, Schedule
from pmrl_cli.train.settings import FitSettings

__all__ = ["ClosedForm", "Continued", "FitResult", "Model", "Recipe"]


@dataclass(frozen=True)
class ClosedForm:
    """A closed form and how well it does.

    Args:
        config: of the closed form.
        held_out: its retrieval on validation.
        compared: how many were compared with it, itself among them.
    """

    config: GccaConfig
    held_out: HeldOut
    compared: int = 1


@dataclass(frozen=True)
class Recipe:
    """One run that was tried, and what came of it.

    Args:
        name: of its stage in the history.
        objective: that it trained on.
        closed_form: that it started from.
        dropout: of its input components.
        start: evaluation of the closed form.
        best: evaluation of the weights kept.
        learned: the objective's own trained parameters when it ended.
        steps: trained in the end: those of ``best``, or of the refit.
        taken: steps that were taken to find the best; none where the budget had no room for one.
        network: whether it started as a network of random weights, on the components of the closed form.
    """

    name: str
    objective: str
    closed_form: ClosedForm
    dropout: float
    start: Progress
    best: Progress
    learned: dict[str, float]
    steps: int
    taken: int
    network: bool = False

    @property
    def by_criterion(self) -> bool:
        """Whether something else than retrieval chose its best evaluation."""
        return CRITERION in self.best.statistics

    @property
    def by_loss(self) -> bool:
        """Whether that was the loss of the validation instances, as the method has no criterion of its own."""
        return self.by_criterion and method_class(self.objective).criterion is Method.criterion


@dataclass(frozen=True)
class Model:
    """The members of the space, as they were trained last.

    Args:
        members: best first.
        recipes: of the members, in their order.
        history: evaluations of the runs that made them, in order.
        train: row numbers of the instances they were trained on.
        axes: (d, d) principal axes of their vectors together; None of a model that went on from one without.
    """

    members: tuple[Member, ...]
    recipes: tuple[Recipe, ...]
    history: tuple[Progress, ...]
    train: npt.NDArray[np.int64]
    axes: npt.NDArray[np.float32] | None


@dataclass(frozen=True)
class Continued:
    """What a fit went on from.

    Args:
        model: folder of the model.
        digest: SHA-256 of its weights.
        new: modalities that joined it.
        protect: what of its training was to stay.
        ranks: for each member, by modality, how many directions are protected: see ``Protection.ranks``.
    """

    model: str
    digest: str
    new: tuple[str, ...]
    protect: str
    ranks: tuple[dict[str, dict[str, int]], ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of the protection, one sentence each."""
        found = {}
        for of_member in self.ranks:
            for name, ranks in of_member.items():
                if ranks["inputs"] == 0:
                    found[name] = f"no direction of {name!r} is protected: raise --protect-energy."
                elif ranks["inputs"] == ranks["of"] and not ranks.get("free"):
                    found[name] = (
                        f"all {ranks['of']} directions of {name!r} are protected, so that it cannot change: lower "
                        f"--protect-energy to let it learn, at the cost of forgetting."
                    )
        return tuple(found.values())


@dataclass(frozen=True)
class FitResult:
    """A trained alignment and the record of how it came about.

    Args:
        names: modalities, in order.
        members: of the space, best first.
        settings: as asked.
        schedule: of the recipes.
        recipes: those of the members, in their order.
        tried: all, in the order they were tried.
        history: evaluations of every run, in order.
        held_out: retrieval of the members together on validation, before any refit.
        share: mean sigma_1^2 / k_i there.
        chance: mean reciprocal rank of a random order there.
        planned: how many recipes a fit without a budget tries.
        whole: whether the budget allowed to compare all closed forms.
        split: what decided which instances train, choose and are kept unseen.
        parts: CSV of the part of each instance, by id.
        refitted: whether validation instances trained in the end.
        wanted_refit: whether they would without a budget.
        counts: instances per part (train, validation, test) as split, less those excluded, and ``suspect`` (left out
            as mispaired).
        excluded: ``vectors`` and ``instances`` (of which a vector) left out of training and validation on request.
        ranked: validation instances that were ranked.
        seen: sorted 64-bit hashes (seed 0) of the ids that trained (``train``) and of those that only chose
            (``validation``), and of the vectors of modality M that trained (``vectors.M``).
        inputs: what was fitted, by modality: rows, dim, digest.
        ids_digest: SHA-256 of the ids in order.
        axes: (d, d) principal axes of the members' vectors together; None where what it went on from has none.
        reduced: how many of them the space has; None leaves it whole.
        in_dims: held-out MRR, before any refit, of the space in so many dimensions, all of them last; empty where
            those are few.
        continued: what it went on from; None if from none.
    """

    names: tuple[str, ...]
    members: tuple[Member, ...]
    settings: FitSettings
    schedule: Schedule
    recipes: tuple[Recipe, ...]
    tried: tuple[Recipe, ...]
    history: tuple[Progress, ...]
    held_out: HeldOut
    share: float
    chance: float
    planned: int
    whole: bool
    split: str
    parts: str
    refitted: bool
    wanted_refit: bool
    counts: dict[str, int]
    excluded: dict[str, int]
    ranked: int
    seen: dict[str, npt.NDArray[np.uint64]]
    inputs: dict[str, dict[str, object]]
    ids_digest: str
    axes: npt.NDArray[np.float32] | None
    reduced: int | None
    in_dims: dict[str, float]
    continued: Continued | None = None

    @property
    def dim(self) -> int:
        """Dimension of the space."""
        return self.reduced or sum(recipe.closed_form.config.dim for recipe in self.recipes)

    @property
    def helped(self) -> bool:
        """Whether validation chose trained weights; with ``trained``, whether they rank above the closed forms."""
        best = max((recipe.best.mrr for recipe in self.recipes if recipe.best.step), default=float("-inf"))
        return best > self.start.mrr if self.settings.trained else best > float("-inf")

    @property
    def chosen(self) -> str:
        """What was chosen, in words."""
        kinds = " + ".join(dict.fromkeys(recipe.closed_form.config.features.kind for recipe in self.recipes))
        trained = [recipe for recipe in self.recipes if recipe.best.step]
        if trained:
            objectives = ", ".join(dict.fromkeys(recipe.objective for recipe in trained))
            steps = max(recipe.best.step for recipe in trained)
            worse = "" if self.helped else "; a closed form ranked better, and --trained left it out"
            return f"{kinds}, trained {steps:,} steps with {objectives}{worse}"
        objectives = ", ".join(dict.fromkeys(r.objective for r in self.tried if r.taken))
        return f"closed form ({kinds}); " + (
            f"training with {objectives} did not help" if objectives else "nothing was trained"
        )

    @property
    def cut(self) -> str:
        """What the budget left out, in words; empty if nothing."""
        cut = {
            f"{len(self.tried)} of {self.planned} candidates tried": len(self.tried) < self.planned,
            "closed forms compared in part": not self.whole,
            "without the refit": self.wanted_refit and not self.refitted,
        }
        if self.settings.budget is None or not any(cut.values()):
            return ""
        # How many were tried is reported in any case.
        said = [words for number, (words, happened) in enumerate(cut.items()) if happened or number == 0]
        return f"budget {self.settings.budget:g}s: {', '.join(said)}"

    @property
    def start(self) -> Progress:
        """Evaluation of the best closed form."""
        return max((recipe.start for recipe in self.tried), key=lambda line: line.mrr)
