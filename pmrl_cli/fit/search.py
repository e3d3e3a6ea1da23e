"""The search: every candidate is trained from its closed form, and validation chooses the members of the space."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pmrl_cli.closed_form.init import solve_gcca_init, whiten
from pmrl_cli.closed_form.projected import ProjectedData
from pmrl_cli.ensemble import Member, side_by_side
from pmrl_cli.fit.context import FitContext
from pmrl_cli.fit.plan import Plan
from pmrl_cli.fit.result import ClosedForm, Model, Recipe
from pmrl_cli.fit.starts import choose_starts
from pmrl_cli.retrieval.relevance import Relevance
from pmrl_cli.training.heldout import HeldOut, held_out_retrieval, mean_share, reciprocal_ranks_by_instance
from pmrl_cli.training.loop import TrainResult
from pmrl_cli.training.run import closed_form_stands_in, embed, objectives_of

__all__ = ["SearchResult", "choose_members", "search"]

DROPOUTS = (0.0, 0.5)

TOLERANCE = 0.5
"""Standard errors of validation that another member may cost: see ``choose_members``."""


@dataclass(frozen=True)
class Candidate:
    """A recipe that was tried, with its trained weights and the data they were trained on."""

    recipe: Recipe
    trained: TrainResult
    data: ProjectedData


@dataclass(frozen=True)
class SearchResult:
    """What the search found.

    Args:
        tried: all recipes, in the order they were tried.
        model: the candidates that make the space together.
        held_out: their retrieval on validation.
        share: mean sigma_1^2 / k_i there.
    """

    tried: tuple[Recipe, ...]
    model: Model
    held_out: HeldOut
    share: float


def choose_members(embeddings: Sequence[Tensor], present: Tensor, relevance: Relevance | None = None) -> list[int]:
    """Return which candidates make the space together, best first.

    Of the first 1, 2, ... in the order of their held-out reciprocal rank, the largest number whose mean reciprocal
    rank is within ``TOLERANCE`` standard errors (of the paired difference) of that of the best number. Where
    validation tells candidates apart that is the best number; where it is too small to tell, it is more, and the mean
    is the safer choice.

    Args:
        embeddings: per candidate (N, K, d_i) unit vectors of the validation instances.
        present: (N, K) bool.
        relevance: what is right for which; None: each instance for itself alone.
    """
    alone = [reciprocal_ranks_by_instance(e, present, relevance).mean() for e in embeddings]
    order = sorted(range(len(alone)), key=lambda i: -alone[i])
    together = [
        reciprocal_ranks_by_instance(side_by_side([embeddings[i] for i in order[:count]]), present, relevance)
        for count in range(1, len(order) + 1)
    ]
    best = max(together, key=lambda values: float(values.mean()))

    def good(values: npt.NDArray[np.float64]) -> bool:
        lost = best - values
        return bool(lost.mean() <= TOLERANCE * lost.std() / len(lost) ** 0.5)

    return order[: max(i + 1 for i, values in enumerate(together) if good(values))]


def search(ctx: FitContext, plan: Plan) -> SearchResult:
    """Try every candidate and choose the members."""
    ctx.hooks.stage("closed-form starts")
    starts = choose_starts(ctx, plan)
    ctx.hooks.stage("training")
    return _choose(ctx, plan, [one for form, data in starts for one in _candidates_of(ctx, plan, form, data)])


def _candidates_of(ctx: FitContext, plan: Plan, form: ClosedForm, data: ProjectedData) -> Iterator[Candidate]:
    init = solve_gcca_init(data, form.config, ctx.solver, ctx.world)
    whitened = whiten(data, init)
    rows = plan.train[ctx.trainable[plan.train]]
    optional = closed_form_stands_in(ctx.settings)
    for name, objective, dropout, steps in _recipes(ctx, plan, form.config.features.kind):
        if steps and optional and plan.deadline is not None and ctx.world.agree(time.monotonic() > plan.deadline):
            continue
        trained = ctx.run.train(
            whitened,
            init,
            stage=name,
            objective=objective,
            dropout=dropout,
            rows=rows,
            validation=plan.validation,
            plan=replace(plan.schedule, steps=steps),
            deadline=plan.deadline,
        )
        optional = True
        best = trained.best
        recipe = Recipe(name, objective, form, dropout, trained.history[0], best, trained.learned, best.step)
        yield Candidate(recipe, trained, whitened)


def _recipes(ctx: FitContext, plan: Plan, kind: str) -> Iterator[tuple[str, str, float, int]]:
    """Yield name, objective, dropout and steps of every candidate of a kind of components: first its closed form."""
    objectives = objectives_of(ctx.settings)
    if closed_form_stands_in(ctx.settings):
        yield f"{kind} start", objectives[0], 0.0, 0
    if not plan.schedule.steps:
        return
    if ctx.settings.dropout is not None:
        dropouts: tuple[float, ...] = (ctx.settings.dropout,)
    else:
        # A kernel's components are not to be left out: each says how near one region is.
        dropouts = DROPOUTS if plan.few and kind != "kernel" else DROPOUTS[:1]
    for objective in objectives:
        for dropout in dropouts:
            name = " ".join([kind, *([objective] if len(objectives) > 1 else []), f"dropout {dropout:g}"])
            yield name, objective, dropout, plan.schedule.steps


def _choose(ctx: FitContext, plan: Plan, tried: Sequence[Candidate]) -> SearchResult:
    held = plan.validation
    present = torch.from_numpy(ctx.dataset.present[held.rows])
    # A run whose best was its start is that start.
    useful = [c for c in tried if c.recipe.name.endswith("start") or c.recipe.best.step]
    alone = ctx.settings.dim is not None or not closed_form_stands_in(ctx.settings)
    judged = [embed(c.trained.encoder, c.data, held.rows) for c in useful]
    if alone:  # the dimension asked for is that of one member
        chosen = [max(range(len(useful)), key=lambda i: useful[i].recipe.best.quality)]
    else:
        chosen = list(ctx.world.agree(choose_members(judged, present, held.relevance)))
    together = side_by_side([judged[i] for i in chosen])
    members = [useful[i] for i in chosen]
    if not plan.refit:
        for c in members:
            ctx.run.see(c.trained.encoder, c.data, plan.train[ctx.trainable[plan.train]])
    model = Model(
        tuple(Member(c.data.projections, c.trained.encoder) for c in members),
        tuple(c.recipe for c in members),
        tuple(line for c in tried for line in c.trained.history),
        plan.train,
    )
    return SearchResult(
        tuple(c.recipe for c in tried),
        model,
        HeldOut(*ctx.world.agree(held_out_retrieval(together, present, held.labels, held.relevance))),
        ctx.world.agree(mean_share(together, present)),
    )
