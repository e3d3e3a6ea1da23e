"""A fit that goes on from a model: each member trains on, and new modalities join its space."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pmrl_cli.batch import Inputs
from pmrl_cli.closed_form.columns import ProjectionFitter
from pmrl_cli.closed_form.extension import axis_lengths, extend
from pmrl_cli.closed_form.init import GccaConfig, Initialization, whiten
from pmrl_cli.closed_form.projected import ProjectedData, project
from pmrl_cli.closed_form.projection import FeatureMap, Projection
from pmrl_cli.data.split import TEST
from pmrl_cli.encoders.continued import Protection, continued
from pmrl_cli.encoders.protocol import Continuation, Init
from pmrl_cli.encoders.residual import Residual
from pmrl_cli.errors import DataError, Place
from pmrl_cli.fit.base import Base
from pmrl_cli.fit.context import FitContext
from pmrl_cli.fit.plan import Plan, without_suspects
from pmrl_cli.fit.race import Race
from pmrl_cli.fit.result import ClosedForm, Continued, Model, Recipe
from pmrl_cli.fit.search import SearchResult
from pmrl_cli.fusion import fuse
from pmrl_cli.model.members import Member, side_by_side
from pmrl_cli.train.heldout import HeldOut, chance_of, held_out_retrieval, mean_rho
from pmrl_cli.train.loop import TrainResult
from pmrl_cli.train.objectives import objectives_of
from pmrl_cli.train.progress import Progress
from pmrl_cli.train.run import RunPlan, embed

__all__ = ["continuation_of", "go_on"]

RIDGES = (0.01, 0.1, 1.0, 10.0)
"""Of the regression by which a new modality finds the space; relative to the mean variance of its components."""

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Start:
    """What a member goes on from, on the data of this fit."""

    data: ProjectedData
    init: Initialization
    continuation: Continuation
    ridges: dict[int, float]


def go_on(ctx: FitContext, plan: Plan, base: Base) -> tuple[SearchResult, Model]:
    """Train every member of a model on; validation chooses how long, and the refit repeats it with all instances.

    Returns: what validation saw, and the members as they were trained last.
    """
    rows = plan.train[ctx.trainable[plan.train]]
    tried: list[Recipe] = []
    chosen: list[tuple[Recipe, TrainResult, _Start]] = []
    ctx.hooks.stage("closed-form starts")
    starts = [_start(ctx, plan.train, plan.validation.rows, base, i) for i in range(len(base.members))]
    ctx.hooks.stage("training")
    for i, start in enumerate(starts):
        found = []
        for name, objective, steps in _recipes(ctx, plan, i):
            trained = _train(ctx, start, name, objective, rows, plan, steps)
            best = trained.best
            form = ClosedForm(base.configs[i], HeldOut(trained.history[0].mrr, trained.history[0].r1))
            dropout = ctx.settings.dropout or 0.0
            first, last = trained.history[0], trained.history[-1]
            recipe = Recipe(name, objective, form, dropout, first, best, trained.learned, best.step, last.step)
            tried.append(recipe)
            found.append((recipe, trained, start))
        chosen.append(max(found, key=lambda one: one[0].best.quality))
    search = _searched(ctx, plan, base, tried, chosen)
    if plan.refit:
        return search, _refit(ctx, plan, base, [(recipe, start.ridges) for recipe, _, start in chosen])
    for _, trained, start in chosen:
        ctx.run.see(trained.encoder, start.data, rows)
    return search, search.model


def continuation_of(ctx: FitContext, base: Base, model: Model) -> Continued:
    """Return the record of what a fit went on from."""
    names, ranks = ctx.dataset.names, []
    for member in model.members:
        protection = member.encoder.protection if isinstance(member.encoder, Residual) else None
        of_member = protection.ranks() if isinstance(protection, Protection) else {}
        ranks.append({names[m]: of_modality for m, of_modality in of_member.items()})
    new = tuple(name for name in names if name not in base.names)
    return Continued(base.path, base.digest, new, ctx.settings.protect, tuple(ranks))


def _recipes(ctx: FitContext, plan: Plan, member: int) -> Iterator[tuple[str, str, int]]:
    objectives = objectives_of(ctx.settings)
    yield f"member {member + 1} start", objectives[0], 0
    if plan.schedule.steps:
        for objective in objectives:
            name = f"member {member + 1}" + (f" {objective}" if len(objectives) > 1 else "")
            yield name, objective, plan.schedule.steps


def _train(
    ctx: FitContext,
    start: _Start,
    name: str,
    objective: str,
    rows: Rows,
    plan: Plan,
    steps: int,
    *,
    evaluated: bool = True,
) -> TrainResult:
    race = Race(plan.budget, refit=plan.refit, stops_early=False)
    run_plan = RunPlan(
        name,
        objective,
        ctx.settings.dropout or 0.0,
        replace(plan.schedule, steps=steps),
        race.is_over if evaluated else lambda _: False,
        start.continuation,
    )
    return ctx.run.train(start.data, start.init, run_plan, rows, plan.validation if evaluated else None)


def _searched(
    ctx: FitContext, plan: Plan, base: Base, tried: list[Recipe], chosen: list[tuple[Recipe, TrainResult, _Start]]
) -> SearchResult:
    held = plan.validation
    present = torch.from_numpy(ctx.dataset.present[held.rows])
    together = side_by_side([embed(trained.encoder, start.data, held.rows) for _, trained, start in chosen])
    model = Model(
        tuple(Member(start.data.projections, trained.encoder) for _, trained, start in chosen),
        tuple(recipe for recipe, _, _ in chosen),
        tuple(line for _, trained, _ in chosen for line in trained.history),
        plan.train,
        base.axes,
    )
    return SearchResult(
        tuple(tried),
        model,
        HeldOut(*ctx.processes.broadcast_json(held_out_retrieval(together, present, held.labels, held.relevance))),
        ctx.processes.broadcast_json(mean_rho(together, present)),
        chance_of(present),
        len(tried),
    )


def _refit(ctx: FitContext, plan: Plan, base: Base, recipes: list[tuple[Recipe, dict[int, float]]]) -> Model:
    train = without_suspects(ctx, np.flatnonzero(ctx.parts != TEST))
    rows = train[ctx.trainable[train]]
    ctx.hooks.stage("training")
    members: list[Member] = []
    again: list[Recipe] = []
    history: list[Progress] = []
    for i, (recipe, ridges) in enumerate(recipes):
        start = _start(ctx, train, train[:0], base, i, ridges)
        steps = round(recipe.best.epoch * (len(rows) // plan.schedule.batch_size))
        trained = _train(ctx, start, f"refit {recipe.name}", recipe.objective, rows, plan, steps, evaluated=False)
        ctx.run.see(trained.encoder, start.data, rows)
        members.append(Member(start.data.projections, trained.encoder))
        again.append(replace(recipe, learned=trained.learned, steps=steps))
        history += trained.history
    return Model(tuple(members), tuple(again), tuple(history), train, base.axes)


def _start(
    ctx: FitContext, train: Rows, validation: Rows, base: Base, i: int, ridges: dict[int, float] | None = None
) -> _Start:
    """Project the data for member i, and find the maps of new modalities, at ridges that were chosen or are here."""
    member, config, dataset = base.members[i], base.configs[i], ctx.dataset
    assert isinstance(member.encoder, Residual)
    places = base.places(dataset.names)
    trains = tuple(bool(dataset.present[train, m].any()) for m in range(len(places)))
    projections, factors = _projections(ctx, train, member, config, places)
    data = project(
        dataset,
        np.union1d(train, validation),
        train,
        projections,
        cross=False,
        scratch=ctx.scratch,
        processes=ctx.processes,
        arithmetic=ctx.arithmetic,
    )
    factors = [
        (variances + config.ridge * variances.mean()) ** -0.5 if place is None else of_old
        for place, variances, of_old in zip(places, data.variances, factors, strict=True)
    ]
    known = [np.zeros((projection.components, config.dim), np.float32) for projection in data.projections]
    init = Initialization(tuple(f.astype(np.float32) for f in factors), tuple(known))
    data = whiten(data, init)
    lengths = tuple(torch.from_numpy(axis_lengths(projection)) for projection in data.projections)
    continuation = Continuation(
        member.encoder, places, trains, lengths, ctx.settings.protect, ctx.settings.protect_energy
    )
    start = _Start(data, init, continuation, ridges or {})
    return _joined(ctx, start, train, validation) if None in places else start


def _projections(
    ctx: FitContext, train: Rows, member: Member, config: GccaConfig, places: tuple[int | None, ...]
) -> tuple[list[Projection], list[npt.NDArray[np.float64]]]:
    """Return the projections, those of the model wider where it left something out, and ones to whiten them by."""
    dataset = ctx.dataset
    new = [m for m, place in enumerate(places) if place is None]
    kind = FeatureMap("kernel" if config.features.kind == "kernel" else "linear", squash=config.features.squash)
    only_new = replace(
        dataset, modalities=tuple(dataset.modalities[m] for m in new), present=dataset.present[:, new], hashes=None
    )
    fitted = dict(
        zip(
            new,
            ProjectionFitter(
                only_new, train, seed=ctx.settings.seed, processes=ctx.processes, arithmetic=ctx.arithmetic
            ).fit(kind)
            if new
            else (),
            strict=True,
        )
    )
    projections = []
    for m, place in enumerate(places):
        projection = fitted[m] if place is None else member.projections[place]
        rows = train[dataset.present[train, m]]
        if place is not None and len(rows) and config.features.kind == "linear":
            projection = extend(
                projection, dataset, m, rows, ridge=config.ridge, processes=ctx.processes, arithmetic=ctx.arithmetic
            )
        projections.append(projection)
    return projections, [np.ones(projection.components) for projection in projections]


def _joined(ctx: FitContext, start: _Start, train: Rows, validation: Rows) -> _Start:
    """Return the start with the maps of new modalities: ridge regressions on the leading direction of known ones."""
    data, init, continuation = start.data, start.init, start.continuation
    places, names = continuation.places, ctx.dataset.names
    encoder = continued(
        Init(tuple(torch.from_numpy(m) for m in init.maps), names, hidden=0, dropout=0.0),
        replace(continuation, protect="none"),
    ).eval()
    known = torch.tensor([place is not None for place in places])
    held = data.positions(ctx.run.local(train))
    targets, anchored = _targets(encoder, data, held, known)
    maps, ridges = list(init.maps), dict[int, float]()
    for m in (m for m, place in enumerate(places) if place is None):
        both = anchored & torch.from_numpy(data.present[held, m])
        components = data.take_modality(m, held).double() * both[:, None]
        gram = ctx.processes.all_reduce(components.mT @ components)
        cross = ctx.processes.all_reduce(components.mT @ targets.double())
        count = float(ctx.processes.all_reduce(both.sum().double()))
        if count < 2:
            raise DataError(
                what="a new modality shares no instance with one of the model's",
                at=Place(names[m]),
                found=f"{int(count)} training instances with it and a modality of the model",
                expected="tens or more",
                next_step="Give files of the same instances for a modality of the model.",
            )
        tried = {r: _ridge_map(gram / count, cross / count, r) for r in RIDGES}
        ridges[m] = start.ridges[m] if m in start.ridges else _best_ridge(ctx, data, encoder, validation, m, tried)
        maps[m] = tried[ridges[m]].numpy()
    return replace(start, init=Initialization(init.whiten, tuple(maps)), ridges=ridges)


def _targets(encoder: Residual, data: ProjectedData, held: Rows, known: Tensor) -> tuple[Tensor, Tensor]:
    """Return (n, d) leading directions of the known modalities, and which instances have one."""
    found, step = [], 8192
    for first in range(0, len(held), step):
        some = held[first : first + step]
        present = torch.from_numpy(data.present[some]) & known
        components = data.take(some)
        with torch.no_grad():
            vectors = encoder(Inputs(components, present)).vectors * present[..., None]
        found.append((fuse(vectors, present), present.any(1)))
    if not found:
        return torch.zeros(0, data.components[0].shape[1]), torch.zeros(0, dtype=torch.bool)
    return torch.cat([targets for targets, _ in found]), torch.cat([any_known for _, any_known in found])


def _ridge_map(gram: Tensor, cross: Tensor, ridge: float) -> Tensor:
    """Return the (p, d) ridge regression, scaled to outputs of mean squared length d."""
    regularised = gram + ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    solved = torch.linalg.solve(regularised, cross)
    power = ((solved.mT @ gram) * solved.mT).sum()
    found: Tensor = (solved * (cross.shape[1] / power.clamp_min(1e-30)).sqrt()).float()
    return found


def _best_ridge(
    ctx: FitContext, data: ProjectedData, encoder: Residual, validation: Rows, m: int, maps: dict[float, Tensor]
) -> float:
    """Return the ridge with which modality m ranks validation best beside the known ones."""
    held = data.positions(validation)
    known = embed(encoder, data, validation)
    own = data.take_modality(m, held)
    quality = []
    for found in maps.values():
        vectors = known.clone()
        vectors[:, m] = torch.nn.functional.normalize(own @ found, dim=1)
        quality.append(held_out_retrieval(vectors, torch.from_numpy(data.present[held])).mrr)
    if not np.isfinite(quality).all():
        raise DataError(
            what="too few held-out instances",
            found=f"no two validation instances that share modality {ctx.dataset.names[m]!r} and another",
            expected="enough to choose by (tens or more)",
            next_step="Give more instances or raise --validation.",
        )
    return list(maps)[ctx.processes.broadcast_json(int(np.argmax(quality)))]
