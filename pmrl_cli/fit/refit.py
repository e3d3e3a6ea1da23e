"""The refit: the chosen recipes trained again, on the validation instances too."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pmrl_cli.closed_form.columns import ProjectionFitter
from pmrl_cli.closed_form.init import Initialization, solve_gcca_init, whiten
from pmrl_cli.closed_form.projected import ProjectedData, project
from pmrl_cli.data.split import TEST
from pmrl_cli.encoders.protocol import Encoder
from pmrl_cli.fit.context import FitContext
from pmrl_cli.fit.networks import as_network
from pmrl_cli.fit.plan import Plan, without_suspects
from pmrl_cli.fit.reduction import axes_of
from pmrl_cli.fit.result import ClosedForm, Model, Recipe
from pmrl_cli.model.members import Member
from pmrl_cli.train.progress import Progress
from pmrl_cli.train.run import RunPlan

__all__ = ["refit"]


def refit(ctx: FitContext, plan: Plan, recipes: tuple[Recipe, ...]) -> Model:
    """Train the recipes on training and validation instances together.

    Each takes as many epochs as were best, of the now longer epoch.
    """
    train = without_suspects(ctx, np.flatnonzero(ctx.parts != TEST))
    rows = train[ctx.trainable[train]]
    ctx.hooks.stage("training")
    fitter = ProjectionFitter(
        ctx.dataset,
        train,
        seed=ctx.settings.seed,
        processes=ctx.processes,
        arithmetic=ctx.arithmetic,
    )
    members: list[Member] = []
    made: list[tuple[Encoder, ProjectedData]] = []
    again: list[Recipe] = []
    history: list[Progress] = []
    form: ClosedForm | None = None
    for recipe in recipes:
        if form is None or recipe.closed_form != form:
            form = recipe.closed_form
            data, init = _start(ctx, fitter, form)
            # Other instances may have other landmarks, and few of them fewer components than were asked for.
            solved = replace(form, config=replace(form.config, dim=min(form.config.dim, init.maps[0].shape[1])))
        steps = round(recipe.best.epoch * (len(rows) // plan.schedule.batch_size))
        schedule = replace(plan.schedule, steps=steps)
        run_plan = RunPlan(f"refit {recipe.name}", recipe.objective, recipe.dropout, schedule)
        if recipe.network:
            run_plan, init = as_network(run_plan, init, recipe.closed_form.config.dim)
        trained = ctx.run.train(data, init, run_plan, rows, None)
        ctx.run.see(trained.encoder, data, rows)
        members.append(Member(data.projections, trained.encoder))
        made.append((trained.encoder, data))
        here = form if recipe.network else solved
        again.append(replace(recipe, closed_form=here, learned=trained.learned, steps=steps))
        history += trained.history
    return Model(tuple(members), tuple(again), tuple(history), train, axes_of(ctx, made, rows))


def _start(ctx: FitContext, fitter: ProjectionFitter, form: ClosedForm) -> tuple[ProjectedData, Initialization]:
    config = form.config
    data = project(
        ctx.dataset,
        fitter.train,
        fitter.train,
        fitter.fit(config.features),
        cross=config.features.kind != "given",
        scratch=ctx.scratch,
        processes=ctx.processes,
        arithmetic=ctx.arithmetic,
    )
    init = solve_gcca_init(data, config, ctx.solver, ctx.processes)
    return whiten(data, init), init
