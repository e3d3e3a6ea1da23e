"""A whole fit: split, closed-form starts, training of every recipe, the choice of members, the refit."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pmrl_cli import __version__
from pmrl_cli.adapters import Adapters
from pmrl_cli.data.dataset import Dataset
from pmrl_cli.data.ids import hash_ids
from pmrl_cli.data.split import TEST, TRAIN, VALIDATION, split_instances
from pmrl_cli.ensemble import Member, side_by_side
from pmrl_cli.errors import DataError
from pmrl_cli.files.scratch import Scratch
from pmrl_cli.gcca import SOLVERS
from pmrl_cli.objectives import make_objective
from pmrl_cli.training.bank import Bank, build_bank, chosen_by_hash, fit_projections
from pmrl_cli.training.checkpoint import Checkpoint
from pmrl_cli.training.devices import choose_device, choose_precision
from pmrl_cli.training.heldout import (
    HELD_OUT_LIMIT,
    HeldOut,
    held_out_retrieval,
    mean_share,
    reciprocal_ranks_by_instance,
)
from pmrl_cli.training.loop import Progress, Schedule, Trained, schedule, train
from pmrl_cli.training.settings import AUTO_OBJECTIVES, FitSettings
from pmrl_cli.training.start import Setting, Start, choose_settings, solve_start
from pmrl_cli.training.trim import trusted

__all__ = ["Fitted", "Recipe", "check_objective", "fit"]

HIDDEN = 256
"""Width of the residual MLP."""

FEW_INSTANCES = 20_000
"""Up to this many training instances a fit tries both dropouts and is refitted with the validation instances: there
a quarter more instances is worth several per cent of retrieval (docs/quality.md), and costs seconds."""

DROPOUTS = (0.0, 0.5)

TOLERANCE = 0.5
"""Standard errors of validation that another member may cost: see ``choose_members``."""

KINDS = {"linear": ("linear",), "mlp": ("linear",), "kernel": ("kernel",), "auto": ("linear", "kernel")}
"""The kinds of scores that each ``--adapter`` tries."""


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


def _objectives(settings: FitSettings) -> tuple[str, ...]:
    return AUTO_OBJECTIVES if settings.objective == "auto" else (settings.objective,)


def _make(settings: FitSettings, objective: str) -> nn.Module:
    # A closed form trains nothing; what stands in for it is never asked.
    return make_objective(AUTO_OBJECTIVES[0] if objective in SOLVERS else objective, settings.objective_settings)


def check_objective(settings: FitSettings, modalities: int | None = None) -> None:
    """Raise UsageError for an unknown objective or setting of it, or one that refuses so many modalities."""
    with torch.random.fork_rng(devices=[]):
        for name in _objectives(settings):
            objective = _make(settings, name)
            if modalities is not None:
                # An empty batch: what the objective has to say of it, it says before any work is done.
                empty = torch.zeros(0, modalities, 1)
                objective(empty, empty[..., 0].bool())


@dataclass(frozen=True)
class _Run:
    """What the runs of one fit share."""

    dataset: Dataset
    settings: FitSettings
    device: torch.device
    folder: Path | None
    fingerprint: dict[str, str]
    report: Callable[[Progress, Schedule], None]
    should_stop: Callable[[], bool]

    def train(
        self,
        bank: Bank,
        start: Start,
        *,
        stage: str,
        objective: str,
        dropout: float,
        rows: npt.NDArray[np.int64],
        validation: npt.NDArray[np.int64] | None,
        plan: Schedule,
        deadline: float | None = None,
    ) -> Trained:
        """Train adapters from a start; the bank's scores are whitened already."""
        arrays = [*start.whiten, *start.maps]
        arrays += [array for projection in bank.projections for array in projection.arrays().values()]
        fingerprint = {
            **self.fingerprint,
            "closed-form start": hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest(),
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed)
            adapters = Adapters(
                [torch.from_numpy(m) for m in start.maps],
                hidden=0 if self.settings.adapter == "linear" else HIDDEN,
                dropout=dropout,
            )
            module = _make(self.settings, objective)
        return train(
            adapters,
            module,
            tuple(torch.from_numpy(s) for s in bank.scores),
            torch.from_numpy(bank.present),
            stage=stage,
            names=self.dataset.names,
            rows=torch.from_numpy(bank.positions(rows)),
            ids_of=lambda chosen: self.dataset.ids.take(bank.rows[chosen]).to_pylist(),
            validation=None if validation is None else torch.from_numpy(bank.positions(validation)),
            plan=plan,
            settings=self.settings,
            device=self.device,
            bf16=choose_precision(self.settings.precision, self.device),
            checkpoint=Checkpoint(self.folder / stage.replace(" ", "-") if self.folder else None, fingerprint),
            report=self.report,
            should_stop=self.should_stop,
            deadline=deadline,
        )


def _whiten(bank: Bank, start: Start) -> Bank:
    # In place: the bank is ours, and a second copy of it would double the largest thing in memory.
    for scores, whiten in zip(bank.scores, start.whiten, strict=True):
        for first in range(0, len(scores), 65536):
            scores[first : first + 65536] *= whiten
    times = (projection.times(whiten) for projection, whiten in zip(bank.projections, start.whiten, strict=True))
    return replace(bank, projections=tuple(times))


def choose_members(embeddings: Sequence[Tensor], present: Tensor) -> list[int]:
    """Return which recipes make the space together, best first.

    Of the first 1, 2, ... in the order of their held-out reciprocal rank: as many as can be had without losing more
    than ``TOLERANCE`` standard errors of the paired difference from the best number. Where validation tells recipes
    apart that is the best number; where it is too small to tell, it is more, and the mean is the safer choice.

    Args:
        embeddings: per recipe (N, K, d_i) unit vectors of the validation instances.
        present: (N, K) bool.
    """
    alone = [reciprocal_ranks_by_instance(e, present).mean() for e in embeddings]
    order = sorted(range(len(alone)), key=lambda i: -alone[i])
    together = [
        reciprocal_ranks_by_instance(side_by_side([embeddings[i] for i in order[:count]]), present)
        for count in range(1, len(order) + 1)
    ]
    best = max(together, key=lambda values: float(values.mean()))

    def good(values: npt.NDArray[np.float64]) -> bool:
        lost = best - values
        return bool(lost.mean() <= TOLERANCE * lost.std() / len(lost) ** 0.5)

    return order[: max(i + 1 for i, values in enumerate(together) if good(values))]


def fit(
    dataset: Dataset,
    settings: FitSettings,
    *,
    device: str = "auto",
    max_memory: int | None = None,
    excluded: npt.NDArray[np.bool_] | None = None,
    checkpoint: Path | None = None,
    stage: Callable[[str], None] = lambda _: None,
    report: Callable[[Progress, Schedule], None] = lambda *_: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Fitted:
    """Fit adapters to a data set.

    Validation chooses what scores are made of, the closed-form setting, the number of steps of every recipe, and
    which recipes make the space together; where instances are few, all of that is then repeated, unjudged, with the
    validation instances trained on too.

    Args:
        dataset: two modalities or more.
        settings: with the data they determine the result.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        max_memory: bytes for features and scores together; scores beyond it live on disk. None: half of what is free.
        excluded: (n, k), vectors that neither train nor choose, as if they were missing; None for none.
        checkpoint: folder of the resumable state; None keeps none.
        stage: told what is being done.
        report: called at each evaluation.
        should_stop: asked after each step.

    Raises: DataError for data that cannot be fitted; UsageError for settings; ResourceError for a device that is
        not there; StateError for a checkpoint of another fit; DivergedError; Interrupted.
    """
    began = time.monotonic()
    chosen_device = choose_device(device)
    if len(dataset.modalities) < 2:
        what = "alignment needs at least two modalities"
        raise DataError(
            what, found=f"only {', '.join(dataset.names)}", expected="two or more", next_step="Give another modality."
        )
    check_objective(settings, len(dataset.modalities))
    objectives = _objectives(settings)
    solver = settings.objective if settings.objective in SOLVERS else SOLVERS[0]
    parts = split_instances(dataset, settings.split_rule)
    left_out = np.zeros_like(dataset.present) if excluded is None else excluded & (parts != TEST)[:, None]
    lost = left_out.any(axis=1) & ((dataset.present & ~left_out).sum(axis=1) < 2)
    dataset = replace(dataset, present=dataset.present & ~left_out)
    ids_digest = hashlib.sha256("\0".join(dataset.ids.to_pylist()).encode()).hexdigest()
    run = _Run(
        dataset,
        settings,
        chosen_device,
        checkpoint,
        {
            **{f"data of {f.name}": f.digest for f in dataset.modalities},
            "ids": ids_digest,
            "split": hashlib.sha256(parts.tobytes()).hexdigest(),
            "excluded": hashlib.sha256(left_out.tobytes()).hexdigest(),
            **{f"setting {name}": json.dumps(value, sort_keys=True) for name, value in settings.as_dict().items()},
            # What rounds otherwise does not continue bit for bit.
            "device": chosen_device.type,
            "threads": str(torch.get_num_threads()),
            "versions": f"pmrl {__version__}, torch {torch.__version__}, numpy {np.__version__}",
        },
        report,
        should_stop,
    )
    trainable = dataset.present.sum(axis=1) >= 2
    of_train, of_validation = np.flatnonzero(parts == TRAIN), np.flatnonzero((parts == VALIDATION) & trainable)
    resident = sum(f.array.nbytes for f in dataset.modalities if not isinstance(f.array, np.memmap))
    for_scores = None if max_memory is None else max(0, max_memory - resident)

    def believed(asked: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        if not settings.mispaired:
            return asked
        return trusted(dataset, asked, settings.mispaired, seed=settings.seed, max_memory=for_scores)

    few = len(of_train) <= FEW_INSTANCES
    of_train = believed(of_train)
    rows = of_train[trainable[of_train]]
    if len(rows) < 2:
        what = "too few training instances"
        raise DataError(
            what,
            found=f"{len(rows)} with two modalities or more",
            expected="2 or more (in practice hundreds)",
            next_step="Check that the files share ids, or lower the shares held out (--validation, --test).",
        )
    refit = few if settings.refit is None else settings.refit

    stage("closed-form starts")
    validation = chosen_by_hash(dataset, of_validation, HELD_OUT_LIMIT, settings.seed)
    starts = choose_settings(
        dataset,
        of_train,
        validation,
        KINDS[settings.adapter],
        dim=settings.dim,
        solver=solver,
        seed=settings.seed,
        max_memory=for_scores,
    )
    plan = schedule(settings, len(rows)) if settings.objective not in SOLVERS else Schedule(len(rows), 0, 1)
    deadline = None if settings.budget is None else began + settings.budget / (2 if refit else 1)
    stage("training")
    tried: list[tuple[Recipe, Trained, Bank]] = []
    for setting, bank in starts:
        kind = setting.features.kind
        start = solve_start(bank, setting, solver)
        whitened = _whiten(bank, start)
        if settings.dropout is not None:
            dropouts: tuple[float, ...] = (settings.dropout,)
        else:
            # A kernel's scores are not to be left out: each says how near one region is.
            dropouts = DROPOUTS if few and kind != "kernel" else DROPOUTS[:1]
        runs = [(f"{kind} start", objectives[0], 0.0, replace(plan, steps=0))]
        if plan.steps:
            runs += [
                (
                    " ".join([kind, *([objective] if len(objectives) > 1 else []), f"dropout {dropout:g}"]),
                    objective,
                    dropout,
                    plan,
                )
                for objective in objectives
                for dropout in dropouts
            ]
        for name, objective, dropout, schedule_of_run in runs:
            if schedule_of_run.steps and deadline is not None and time.monotonic() > deadline:
                continue
            trained = run.train(
                whitened,
                start,
                stage=name,
                objective=objective,
                dropout=dropout,
                rows=rows,
                validation=validation,
                plan=schedule_of_run,
                deadline=deadline,
            )
            line = trained.best
            recipe = Recipe(name, objective, setting, dropout, trained.history[0], line, trained.learned, line.step)
            tried.append((recipe, trained, whitened))
    present = torch.from_numpy(dataset.present[validation])
    # A run whose best was its start is that start.
    useful = [i for i, (recipe, _, _) in enumerate(tried) if recipe.name.endswith("start") or recipe.best.step]
    judged = {i: _embed(tried[i][1].adapters, tried[i][2], validation) for i in useful}
    if settings.dim is None:
        chosen = [useful[i] for i in choose_members([judged[i] for i in useful], present)]
    else:  # the dimension asked for is that of one member
        chosen = [max(useful, key=lambda i: tried[i][0].best.mrr)]
    held_out = held_out_retrieval(side_by_side([judged[i] for i in chosen]), present)
    share = mean_share(side_by_side([judged[i] for i in chosen]), present)

    history = [line for _, trained, _ in tried for line in trained.history]
    members = [Member(bank.projections, trained.adapters) for _, trained, bank in (tried[i] for i in chosen)]
    recipes = [tried[i][0] for i in chosen]
    all_recipes = tuple(recipe for recipe, _, _ in tried)
    trained_on = of_train
    if refit:
        del starts, tried, judged
        trained_on = believed(np.flatnonzero(parts != TEST))
        rows = trained_on[trainable[trained_on]]
        stage("training")
        members = []
        for i, recipe in enumerate(recipes):
            setting = recipe.setting
            if i == 0 or setting != recipes[i - 1].setting:
                projections = fit_projections(dataset, trained_on, setting.features, seed=settings.seed)
                cross = setting.features.kind != "given"
                scratch = Scratch(for_scores)
                bank = build_bank(dataset, trained_on, trained_on, projections, cross=cross, scratch=scratch)
                start = solve_start(bank, setting, solver)
                whitened = _whiten(bank, start)
            # As many epochs as were best, of the now longer epoch.
            steps = round(recipe.best.epoch * (len(rows) // plan.batch_size))
            again = run.train(
                whitened,
                start,
                stage=f"refit {recipe.name}",
                objective=recipe.objective,
                dropout=recipe.dropout,
                rows=rows,
                validation=None,
                plan=replace(plan, steps=steps),
            )
            members.append(Member(whitened.projections, again.adapters))
            recipes[i] = replace(recipe, learned=again.learned, steps=steps)
            history += again.history
    hashes = hash_ids(dataset.ids, 0)
    # The distrusted among them: what is likely mispaired judges nothing.
    seen_in_training = (parts != TEST) if refit else parts == TRAIN
    return Fitted(
        names=dataset.names,
        members=tuple(members),
        settings=settings,
        plan=plan,
        recipes=tuple(recipes),
        tried=all_recipes,
        history=tuple(history),
        held_out=held_out,
        share=share,
        refitted=refit,
        counts={
            name: int(((parts == part) & ~lost).sum())
            for name, part in (("train", TRAIN), ("validation", VALIDATION), ("test", TEST))
        }
        | {"distrusted": int(seen_in_training.sum()) - len(trained_on)},
        seen={
            "train": np.sort(hashes[seen_in_training]),
            "validation": np.sort(hashes[(parts == VALIDATION) & ~seen_in_training]),
        },
        excluded={"vectors": int(left_out.sum()), "instances": int(left_out.any(axis=1).sum())},
        ranked=len(validation),
        inputs={
            f.name: {"rows": int(dataset.present[:, m].sum()), "dim": f.dim, "digest": f.digest}
            for m, f in enumerate(dataset.modalities)
        },
        ids_digest=ids_digest,
    )


def _embed(adapters: Adapters, bank: Bank, rows: npt.NDArray[np.int64]) -> Tensor:
    positions = bank.positions(rows)
    with torch.no_grad():
        embeddings: Tensor = adapters([torch.from_numpy(scores[positions]) for scores in bank.scores])
    return embeddings
