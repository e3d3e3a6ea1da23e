"""A whole fit: split, closed-form starts, training of every candidate, the choice of members, the refit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from pmrl_cli.data.dataset import Dataset
from pmrl_cli.data.leaks import VECTORS, trained_vectors
from pmrl_cli.data.split import TEST, TRAIN, VALIDATION, split_text
from pmrl_cli.fit.base import Base
from pmrl_cli.fit.context import FitContext, Hooks, Machine, open_context
from pmrl_cli.fit.continued import continuation_of, go_on
from pmrl_cli.fit.plan import Plan, make_plan
from pmrl_cli.fit.refit import refit
from pmrl_cli.fit.result import FitResult, Model
from pmrl_cli.fit.search import SearchResult, search
from pmrl_cli.train.settings import FitSettings

__all__ = ["fit"]


def fit(
    dataset: Dataset,
    settings: FitSettings,
    *,
    machine: Machine = Machine(),
    excluded: npt.NDArray[np.bool_] | None = None,
    checkpoint: Path | None = None,
    hooks: Hooks = Hooks(),
    base: Base | None = None,
) -> FitResult:
    """Fit a model to a data set.

    Validation chooses the components, the closed form, the number of steps of every recipe, and which recipes make
    the space together; where instances are few, the chosen ones are then trained again on the validation instances
    too, for as many epochs as were best.

    Args:
        dataset: two modalities or more.
        settings: with the data they determine the result.
        machine: what it runs on.
        excluded: (n, k), vectors that neither train nor choose, as if they were missing; None for none.
        checkpoint: folder of the resumable state; None keeps none.
        hooks: called while it runs.
        base: the model to go on from; None: the fit starts without one.

    Raises: DataError for data that cannot be fitted; UsageError for settings; ResourceError for a device that is
        not there; StateError for a checkpoint of another fit; DivergedError; Interrupted.
    """
    ctx = open_context(
        dataset, settings, machine=machine, excluded=excluded, checkpoint=checkpoint, hooks=hooks, base=base
    )
    plan = make_plan(ctx)
    refitted = plan.refit
    if base is not None:
        found, model = go_on(ctx, plan, base)
    else:
        found = search(ctx, plan)
        recipes = found.model.recipes
        plan.budget.keep_only(*(r.name for r in recipes), *(r.closed_form.config.features.kind for r in recipes))
        refitted = plan.refit and plan.budget.allows()
        model = refit(ctx, plan, recipes) if refitted else found.model
    return _result(ctx, plan, found, model, refitted=refitted)


def _result(ctx: FitContext, plan: Plan, found: SearchResult, model: Model, *, refitted: bool) -> FitResult:
    dataset, parts = ctx.dataset, ctx.parts
    lost = ctx.excluded.any(axis=1) & ~ctx.trainable
    # The suspects among them: what is likely mispaired validates nothing.
    seen = (parts != TEST) if refitted else parts == TRAIN
    words = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
    counts = {word: int(((parts == part) & ~lost).sum()) for word, part in words.items()}
    seen_ids = {
        "train": dataset.hashes_to_know(seen),
        "validation": dataset.hashes_to_know((parts == VALIDATION) & ~seen),
        **{f"{VECTORS}{name}": found for name, found in trained_vectors(dataset, seen).items()},
    }
    inputs: dict[str, dict[str, object]] = {
        f.name: {"rows": int(dataset.present[:, m].sum()), "dim": f.dim, "digest": f.digest}
        | ({"axes": f.axes} if f.axes else {})
        for m, f in enumerate(dataset.modalities)
    }
    if ctx.base is not None:
        seen_ids, inputs = ctx.base.with_ids(seen_ids), ctx.base.with_inputs(inputs)
    return FitResult(
        names=dataset.names,
        members=model.members,
        settings=ctx.settings,
        schedule=plan.schedule,
        recipes=model.recipes,
        tried=found.tried,
        history=found.model.history + (model.history if refitted else ()),
        held_out=found.held_out,
        share=found.share,
        chance=found.chance,
        planned=found.planned,
        whole=found.whole,
        split=_ruled_by(ctx.settings),
        parts=split_text(dataset.ids, parts),
        refitted=refitted,
        wanted_refit=plan.refit,
        counts=counts | {"suspect": int(seen.sum()) - len(model.train)},
        seen=seen_ids,
        excluded={"vectors": int(ctx.excluded.sum()), "instances": int(ctx.excluded.any(axis=1).sum())},
        ranked=len(plan.validation.rows),
        inputs=inputs,
        ids_digest=ctx.ids_digest,
        axes=model.axes,
        reduced=_reduced(ctx, model),
        in_dims=found.in_dims,
        continued=None if ctx.base is None else continuation_of(ctx, ctx.base, model),
    )


def _reduced(ctx: FitContext, model: Model) -> int | None:
    """Return how many dimensions the space is reduced to; None if it has no more."""
    if ctx.base is not None:
        return ctx.base.reduced
    asked = ctx.settings.dim
    return asked if asked is not None and model.axes is not None and asked < len(model.axes) else None


def _ruled_by(settings: FitSettings) -> str:
    ruled = f"from column {settings.split_column!r}" if settings.split_column else "by hash of the ids"
    columns = (("group", settings.group), ("match", settings.match))
    whole = [f"{word} {column!r}" for word, column in columns if column]
    return ruled + (f", {' and '.join(whole)} kept whole" if whole else "")
