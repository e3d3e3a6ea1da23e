"""The search: every candidate is trained from its closed form, and validation chooses the members of the space."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pmrl_cli.closed_form.init import whiten
from pmrl_cli.closed_form.projected import ProjectedData
from pmrl_cli.fit.context import FitContext
from pmrl_cli.fit.networks import DROPOUT, as_network, network_form
from pmrl_cli.fit.plan import Plan
from pmrl_cli.fit.race import Race
from pmrl_cli.fit.reduction import DIMS, axes_of, can_reduce
from pmrl_cli.fit.result import Model, Recipe
from pmrl_cli.fit.starts import Start, choose_starts
from pmrl_cli.methods import method_class
from pmrl_cli.methods.protocol import Method
from pmrl_cli.model.members import Member, side_by_side
from pmrl_cli.model.reduction import reduced
from pmrl_cli.retrieval.relevance import Relevance
from pmrl_cli.train.heldout import (
    HeldOut,
    chance_of,
    held_out_retrieval,
    mean_rho,
    reciprocal_ranks_by_instance,
)
from pmrl_cli.train.loop import TrainResult
from pmrl_cli.train.objectives import closed_form_stands_in, objectives_of
from pmrl_cli.train.run import RunPlan, embed
from pmrl_cli.train.settings import FitSettings

__all__ = ["IN_FULL", "Candidate", "SearchResult", "choose_members", "run_candidates", "search"]

DROPOUTS = (0.0, 0.5)

IN_FULL = " in full"
"""Ends the name of a candidate that the race gave up and that is trained to its peak, being a member all the same."""

TOLERANCE = 0.5
"""Standard errors of validation that another member may cost: see ``choose_members``."""


@dataclass(frozen=True)
class Candidate:
    """A recipe that was tried, with its trained weights and the data they were trained on.

    Args:
        recipe: what was tried.
        trained: what came of it.
        data: whitened components.
        embedded: (N, K, d) embeddings of the validation instances.
        given_up: whether it was stopped because it could not reach the best alone, before its peak.
    """

    recipe: Recipe
    trained: TrainResult
    data: ProjectedData
    embedded: Tensor
    given_up: bool = False


@dataclass(frozen=True)
class SearchResult:
    """What the search found.

    Args:
        tried: all recipes, in the order they were tried.
        model: the candidates that make the space together.
        held_out: their retrieval on validation.
        share: mean sigma_1^2 / k_i there.
        chance: mean reciprocal rank of a random order there.
        planned: how many recipes a fit without a budget tries.
        whole: whether the budget allowed to compare all closed forms.
        in_dims: held-out MRR of the space in so many dimensions.
    """

    tried: tuple[Recipe, ...]
    model: Model
    held_out: HeldOut
    share: float
    chance: float
    planned: int
    whole: bool = True
    in_dims: dict[str, float] = field(default_factory=dict)


def choose_members(embeddings: Sequence[Tensor], present: Tensor, relevance: Relevance | None = None) -> list[int]:
    """Return which candidates make the space together, best first.

    Of the first 1, 2, ... in the order of their held-out reciprocal rank, the largest number whose mean reciprocal
    rank is within ``TOLERANCE`` standard errors (of the paired difference) of that of the best number. Where
    validation is large enough to separate them that is the best number; else it is more, and the mean is the safer
    choice.

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


@dataclass(frozen=True)
class _Entry:
    """A candidate before it runs; without steps it is a closed form."""

    start: Start
    name: str
    objective: str
    dropout: float
    steps: int
    network: bool = False

    def is_without_dropout_of(self, other: _Entry) -> bool:
        """Return whether the other is this one but for its dropout of components."""
        same = self.start is other.start and self.objective == other.objective
        return same and self.steps > 0 and not (self.dropout or self.network or other.network)


def search(ctx: FitContext, plan: Plan) -> SearchResult:
    """Try the candidates and choose the members.

    Closed forms first, then training, from the best closed form on. A run stops when it is over its peak or cannot
    reach the best of those before it (``Race``). One that was given up and that the other members miss, because it
    errs otherwise than they do, is trained to its peak.
    """
    tried, planned, whole = run_candidates(ctx, plan)
    return replace(_choose(ctx, plan, tried), planned=planned, whole=whole)


def run_candidates(ctx: FitContext, plan: Plan) -> tuple[list[Candidate], int, bool]:
    """Return the candidates that were tried, how many there are, and whether all closed forms were compared."""
    ctx.hooks.stage("closed forms")
    closed_forms = choose_starts(ctx, plan)
    starts = [replace(start, data=whiten(start.data, start.init)) for start in closed_forms.best]
    race = Race(plan.budget, refit=plan.refit, stops_early=_methods_stand_in(ctx.settings))
    ctx.hooks.stage("training")
    entries = _entries(ctx, plan, starts)
    tried: list[tuple[_Entry, Candidate]] = []
    skipped = 0
    for number, entry in enumerate(entries, start=1):
        if tried and entry.steps and not plan.budget.allows():
            break
        if any(c.given_up and e.is_without_dropout_of(entry) for e, c in tried):
            skipped += 1  # it learns more slowly still
            continue
        ctx.hooks.candidate(number, len(entries), entry.name)
        # A network starts far behind, and gains for longer than can be seen from its first evaluations.
        tried.append((entry, _try(ctx, plan, entry, race, to_its_peak=entry.network)))
    candidates = _in_full(ctx, plan, tried, race)
    planned = len(entries) - skipped + sum(_count(ctx, plan, kind) for kind in closed_forms.left_out)
    return candidates, planned, closed_forms.whole


def _in_full(ctx: FitContext, plan: Plan, tried: Sequence[tuple[_Entry, Candidate]], race: Race) -> list[Candidate]:
    """Return the candidates; members that were given up and without which the others rank worse, at their peak."""
    candidates = [candidate for _, candidate in tried]
    if not any(candidate.given_up for candidate in candidates):
        return candidates
    members = _members(ctx, plan, candidates)
    missed = [i for i in members if candidates[i].given_up and _is_missed(ctx, plan, candidates, members, i)]
    for i in ctx.processes.broadcast_json(missed):
        if plan.budget.allows():
            entry = replace(tried[i][0], name=f"{tried[i][0].name}{IN_FULL}")
            ctx.hooks.candidate(len(tried), len(tried), entry.name)
            candidates[i] = _try(ctx, plan, entry, race, to_its_peak=True)
    return candidates


def _is_missed(
    ctx: FitContext, plan: Plan, candidates: Sequence[Candidate], members: Sequence[int], one: int
) -> bool:
    """Return whether the others rank worse without one of the members, by more than ``TOLERANCE`` standard errors."""
    others = [i for i in members if i != one]
    if not others:
        return True
    present = torch.from_numpy(ctx.dataset.present[plan.validation.rows])
    together, without = (
        reciprocal_ranks_by_instance(
            side_by_side([candidates[i].embedded for i in these]), present, plan.validation.relevance
        )
        for these in (members, others)
    )
    gained = together - without
    return bool(gained.mean() > TOLERANCE * gained.std() / len(gained) ** 0.5)


def _count(ctx: FitContext, plan: Plan, kind: str) -> int:
    """Return how many candidates a kind of components makes."""
    trained = len(list(_recipes(ctx, plan, kind))) if plan.schedule.steps else 0
    return trained + closed_form_stands_in(ctx.settings)


def _try(ctx: FitContext, plan: Plan, entry: _Entry, race: Race, *, to_its_peak: bool = False) -> Candidate:
    race.begin(to_its_peak=to_its_peak)
    start, form, init = entry.start, entry.start.form, entry.start.init
    schedule = replace(plan.schedule, steps=entry.steps)
    run_plan = RunPlan(entry.name, entry.objective, entry.dropout, schedule, race.is_over)
    if entry.network:
        form = network_form(form, ctx.settings.dim)
        run_plan, init = as_network(run_plan, init, form.config.dim)
    rows = plan.train[ctx.trainable[plan.train]]
    trained = ctx.run.train(start.data, init, run_plan, rows, plan.validation)
    best, history = trained.best, trained.history
    held = plan.validation
    embedded = embed(trained.encoder, start.data, held.rows)
    present = torch.from_numpy(ctx.dataset.present[held.rows])
    ranks = reciprocal_ranks_by_instance(embedded, present, held.relevance)
    given_up = race.finish(entry.name, history, best, float(ranks.std()) / len(ranks) ** 0.5)
    recipe = Recipe(
        entry.name,
        entry.objective,
        form,
        entry.dropout,
        history[0],
        best,
        trained.learned,
        best.step,
        history[-1].step,
        network=entry.network,
    )
    return Candidate(recipe, trained, start.data, embedded, given_up)


def _methods_stand_in(settings: FitSettings) -> bool:
    return closed_form_stands_in(replace(settings, trained=False))


def _entries(ctx: FitContext, plan: Plan, starts: Sequence[Start]) -> list[_Entry]:
    entries: list[_Entry] = []
    if closed_form_stands_in(ctx.settings) or not plan.schedule.steps:
        first = objectives_of(ctx.settings)[0]
        entries += [_Entry(start, f"{start.form.config.features.kind} start", first, 0.0, 0) for start in starts]
    if plan.schedule.steps:
        entries += [
            _Entry(start, name, objective, dropout, plan.schedule.steps, network)
            for start in starts
            for name, objective, dropout, network in _recipes(ctx, plan, start.form.config.features.kind)
        ]
    return entries


def _recipes(ctx: FitContext, plan: Plan, kind: str) -> Iterator[tuple[str, str, float, bool]]:
    """Yield name, objective, dropout and whether it is a network of every candidate of a kind that is trained."""
    objectives = objectives_of(ctx.settings)
    if ctx.settings.dropout is not None:
        dropouts: tuple[float, ...] = (ctx.settings.dropout,)
    else:
        # A kernel's components are not to be left out: each says how near one region is.
        dropouts = DROPOUTS if plan.few and kind != "kernel" else DROPOUTS[:1]
    for objective in objectives:
        named = " ".join([kind, *([objective] if len(objectives) > 1 else [])])
        for dropout in dropouts:
            yield f"{named} dropout {dropout:g}", objective, dropout, False
        if plan.networks and kind == "linear" and method_class(objective).encoder is Method.encoder:
            rate = DROPOUT if ctx.settings.dropout is None else ctx.settings.dropout
            yield f"{named} network dropout {rate:g}", objective, rate, True


def _choose(ctx: FitContext, plan: Plan, tried: Sequence[Candidate]) -> SearchResult:
    held = plan.validation
    present = torch.from_numpy(ctx.dataset.present[held.rows])
    members = [tried[i] for i in _members(ctx, plan, tried)]
    together = side_by_side([c.embedded for c in members])
    rows = plan.train[ctx.trainable[plan.train]]
    if not plan.refit:
        for c in members:
            ctx.run.see(c.trained.encoder, c.data, rows)
    axes = axes_of(ctx, [(c.trained.encoder, c.data) for c in members], rows)
    in_dims = ctx.processes.broadcast_json(_in_dims(ctx, plan, together, axes))
    if ctx.settings.dim is not None:
        together = reduced(together, torch.from_numpy(axes[:, : ctx.settings.dim]))
    model = Model(
        tuple(Member(c.data.projections, c.trained.encoder) for c in members),
        tuple(c.recipe for c in members),
        tuple(line for c in tried for line in c.trained.history),
        plan.train,
        axes,
    )
    return SearchResult(
        tuple(c.recipe for c in tried),
        model,
        HeldOut(*ctx.processes.broadcast_json(_held_out_of(plan, present, together))),
        ctx.processes.broadcast_json(mean_rho(together, present)),
        chance_of(present),
        len(tried),
        in_dims=in_dims,
    )


def _members(ctx: FitContext, plan: Plan, tried: Sequence[Candidate]) -> list[int]:
    """Return which candidates make the space together, best first."""
    # Where closed forms compete, a run whose best was its start is that start.
    competing = any(c.recipe.name.endswith("start") for c in tried)
    useful = [
        i for i, c in enumerate(tried) if c.recipe.name.endswith("start") or c.recipe.best.step or not competing
    ]
    alone = ctx.settings.dim is not None and not can_reduce(ctx.settings)
    if alone or not _methods_stand_in(ctx.settings):  # what they make is not to be averaged
        return [_best_alone([tried[i].recipe for i in useful], useful)]
    present = torch.from_numpy(ctx.dataset.present[plan.validation.rows])
    chosen = choose_members([tried[i].embedded for i in useful], present, plan.validation.relevance)
    return [useful[i] for i in ctx.processes.broadcast_json(chosen)]


def _best_alone(recipes: Sequence[Recipe], places: Sequence[int]) -> int:
    """Return the place of the best recipe.

    Of one kind of components the best by what chooses between evaluations. Where that is the loss, as the method has
    no criterion of its own, retrieval chooses between kinds: losses on other components do not compare.
    """
    of_kind: dict[str, tuple[Recipe, int]] = {}
    for recipe, place in zip(recipes, places, strict=True):
        kind = recipe.closed_form.config.features.kind
        if kind not in of_kind or recipe.best.quality > of_kind[kind][0].best.quality:
            of_kind[kind] = recipe, place
    return max(of_kind.values(), key=lambda one: one[0].best.mrr if one[0].by_loss else one[0].best.quality)[1]


def _in_dims(ctx: FitContext, plan: Plan, vectors: Tensor, axes: npt.NDArray[np.float32]) -> dict[str, float]:
    """Return the held-out MRR of the space in fewer dimensions, and last in all, by how many."""
    present = torch.from_numpy(ctx.dataset.present[plan.validation.rows])
    fewer = {dim for dim in (*DIMS, ctx.settings.dim) if dim is not None and dim < len(axes)}
    dims = fewer | {len(axes)} if fewer else fewer
    along = torch.from_numpy(axes)
    return {str(dim): _held_out_of(plan, present, reduced(vectors, along[:, :dim])).mrr for dim in sorted(dims)}


def _held_out_of(plan: Plan, present: Tensor, vectors: Tensor) -> HeldOut:
    return held_out_retrieval(vectors, present, plan.validation.labels, plan.validation.relevance)
