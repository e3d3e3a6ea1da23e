"""A whole fit: split, closed-form starts, training of every recipe, the choice of members, the refit."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pmrl_cli import __version__
from pmrl_cli.data.dataset import Dataset
from pmrl_cli.data.ids import hash_ids
from pmrl_cli.data.split import TEST, TRAIN, VALIDATION, split_instances
from pmrl_cli.ensemble import Member, side_by_side
from pmrl_cli.errors import DataError
from pmrl_cli.files.durable.scratch import Scratch
from pmrl_cli.gcca import SOLVERS
from pmrl_cli.training.bank import Bank, build_bank, chosen_by_hash, fit_projections
from pmrl_cli.training.devices import choose_device
from pmrl_cli.training.fitted import Fitted, Recipe
from pmrl_cli.training.heldout import (
    HELD_OUT_LIMIT,
    HeldOut,
    held_out_retrieval,
    mean_share,
    reciprocal_ranks_by_instance,
)
from pmrl_cli.training.loop import Progress, Schedule, Trained, schedule
from pmrl_cli.training.run import Run, check_objective, embed, objectives_of, whiten
from pmrl_cli.training.settings import FitSettings
from pmrl_cli.training.start import choose_settings, solve_start
from pmrl_cli.training.trim import trusted
from pmrl_cli.world import ALONE, World, first_arrays

__all__ = ["choose_members", "fit"]

FEW_INSTANCES = 20_000
"""Up to this many training instances a fit tries both dropouts and is refitted with the validation instances: there
a quarter more instances is worth several per cent of retrieval (docs/quality.md), and costs seconds."""

DROPOUTS = (0.0, 0.5)

TOLERANCE = 0.5
"""Standard errors of validation that another member may cost: see ``choose_members``."""

KINDS = {"linear": ("linear",), "mlp": ("linear",), "kernel": ("kernel",), "auto": ("linear", "kernel")}
"""The kinds of scores that each ``--adapter`` tries."""


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
    world: World = ALONE,
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
        should_stop: asked at each step.
        world: the processes that fit together: each holds its share of the training instances, all end with the same
            result.

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
    objectives = objectives_of(settings)
    solver = settings.objective if settings.objective in SOLVERS else SOLVERS[0]
    parts = split_instances(dataset, settings.split_rule)
    left_out = np.zeros_like(dataset.present) if excluded is None else excluded & (parts != TEST)[:, None]
    lost = left_out.any(axis=1) & ((dataset.present & ~left_out).sum(axis=1) < 2)
    dataset = replace(dataset, present=dataset.present & ~left_out)
    ids_digest = hashlib.sha256("\0".join(dataset.ids.to_pylist()).encode()).hexdigest()
    run = Run(
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
            "products": torch.get_float32_matmul_precision(),
            "processes": str(world.size),
            "versions": f"pmrl {__version__}, torch {torch.__version__}, numpy {np.__version__}",
        },
        report,
        should_stop,
        world,
    )
    trainable = dataset.present.sum(axis=1) >= 2
    of_train, of_validation = np.flatnonzero(parts == TRAIN), np.flatnonzero((parts == VALIDATION) & trainable)
    resident = sum(f.array.nbytes for f in dataset.modalities if not isinstance(f.array, np.memmap))
    scratch = Scratch(None if max_memory is None else max(0, max_memory - resident))

    def believed(asked: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        if not settings.mispaired:
            return asked
        kept = trusted(dataset, asked, settings.mispaired, seed=settings.seed, scratch=scratch)
        return first_arrays(world, {"rows": kept})["rows"]

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
        scratch=scratch,
        world=world,
    )
    plan = schedule(settings, len(rows)) if settings.objective not in SOLVERS else Schedule(len(rows), 0, 1)
    deadline = None if settings.budget is None else began + settings.budget / (2 if refit else 1)
    stage("training")
    tried: list[tuple[Recipe, Trained, Bank]] = []
    for setting, bank in starts:
        kind = setting.features.kind
        start = solve_start(bank, setting, solver, world)
        whitened = whiten(bank, start)
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
            if schedule_of_run.steps and deadline is not None and world.agree(time.monotonic() > deadline):
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
    judged = {i: embed(tried[i][1].encoder, tried[i][2], validation) for i in useful}
    if settings.dim is None:
        chosen = [useful[i] for i in world.agree(choose_members([judged[i] for i in useful], present))]
    else:  # the dimension asked for is that of one member
        chosen = [max(useful, key=lambda i: tried[i][0].best.mrr)]
    together = side_by_side([judged[i] for i in chosen])
    held_out = HeldOut(*world.agree(held_out_retrieval(together, present)))
    share = world.agree(mean_share(together, present))

    history = [line for _, trained, _ in tried for line in trained.history]
    members = [Member(bank.projections, trained.encoder) for _, trained, bank in (tried[i] for i in chosen)]
    recipes = [tried[i][0] for i in chosen]
    all_recipes = tuple(recipe for recipe, _, _ in tried)
    trained_on = of_train
    if refit:
        del starts, tried, judged, bank, whitened, trained  # the scores they hold
        trained_on = believed(np.flatnonzero(parts != TEST))
        rows = trained_on[trainable[trained_on]]
        stage("training")
        members = []
        for i, recipe in enumerate(recipes):
            setting = recipe.setting
            if i == 0 or setting != recipes[i - 1].setting:
                projections = fit_projections(dataset, trained_on, setting.features, seed=settings.seed, world=world)
                cross = setting.features.kind != "given"
                bank = build_bank(
                    dataset, trained_on, trained_on, projections, cross=cross, scratch=scratch, world=world
                )
                start = solve_start(bank, setting, solver, world)
                whitened = whiten(bank, start)
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
            members.append(Member(whitened.projections, again.encoder))
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
