"""What a fit will do: which instances train and choose, for how long, and whether it is repeated with all of them."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic

import numpy as np
import numpy.typing as npt

from pmrl_cli.closed_form.gcca import SOLVERS
from pmrl_cli.data.split import TRAIN, VALIDATION
from pmrl_cli.errors import DataError
from pmrl_cli.fit.budget import Budget
from pmrl_cli.fit.context import FitContext
from pmrl_cli.fit.suspects import drop_suspects
from pmrl_cli.process_group import broadcast_arrays
from pmrl_cli.retrieval.relevance import Relevance
from pmrl_cli.train.heldout import HELD_OUT_LIMIT, ValidationSet
from pmrl_cli.train.objectives import make, objectives_of
from pmrl_cli.train.progress import Schedule, schedule
from pmrl_cli.train.settings import FitSettings

__all__ = ["Plan", "make_plan", "without_suspects"]

Rows = npt.NDArray[np.int64]

KINDS = {"linear": ("linear",), "mlp": ("linear",), "kernel": ("kernel",), "auto": ("linear", "kernel")}
"""The kinds of components that each ``--adapter`` tries."""

FEW_INSTANCES = 20_000
"""Up to this many training instances a fit tries both dropouts and is refitted with the validation instances: there
a quarter more instances is worth several per cent of retrieval (docs/quality.md), and costs seconds."""


ROWS_A_COLUMN = 20
"""Training instances for each column of all modalities together from which networks of random weights are tried:
where columns are few, a relation that is not linear is learned better than by nearness to instances."""


@dataclass(frozen=True)
class Plan:
    """What a fit will do.

    Args:
        train: row numbers of the instances that train, ascending; some may have one modality.
        validation: those that are ranked to choose.
        schedule: of each candidate.
        kinds: of components that are tried.
        few: whether instances are so few that more is tried.
        networks: whether networks of random weights are tried.
        refit: whether the members are trained again with the validation instances.
        budget: of the fit.
    """

    train: Rows
    validation: ValidationSet
    schedule: Schedule
    kinds: tuple[str, ...]
    few: bool
    networks: bool
    refit: bool
    budget: Budget


def without_suspects(ctx: FitContext, rows: Rows) -> Rows:
    """Return the rows without the share that ``--mispaired`` says is mispaired, the most suspect of them."""
    if not ctx.settings.mispaired:
        return rows
    kept = drop_suspects(
        ctx.dataset,
        rows,
        ctx.settings.mispaired,
        seed=ctx.settings.seed,
        scratch=ctx.scratch,
        arithmetic=ctx.arithmetic,
    )
    return broadcast_arrays(ctx.processes, {"rows": kept})["rows"]


def make_plan(ctx: FitContext) -> Plan:
    """Return the plan.

    Raises: DataError if fewer than two instances can train.
    """
    settings = ctx.settings
    train = np.flatnonzero(ctx.parts == TRAIN)
    few = len(train) <= FEW_INSTANCES
    train = without_suspects(ctx, train)
    trains = int(ctx.trainable[train].sum())
    if trains < 2:
        raise DataError(
            what="too few training instances",
            found=f"{trains} with two modalities or more",
            expected="2 or more (in practice hundreds)",
            next_step="Check that the files share ids, or lower the shares held out (--validation, --test).",
        )
    chooses = np.flatnonzero((ctx.parts == VALIDATION) & ctx.trainable)
    ranked = ctx.dataset.smallest_by_hash(chooses, HELD_OUT_LIMIT, settings.seed)
    refit = few if settings.refit is None else settings.refit
    return Plan(
        train,
        ValidationSet(
            ranked, Relevance.of(ctx.dataset, settings.match).take(ranked), ctx.run.labels_evaluated(ranked)
        ),
        Schedule(trains, 0, 1) if settings.objective in SOLVERS or settings.fast else schedule(settings, trains),
        _kinds(settings),
        few,
        few and trains >= ROWS_A_COLUMN * sum(ctx.dataset.dims) and settings.adapter in ("auto", "mlp"),
        refit,
        Budget(settings.budget, began=ctx.began, processes=ctx.processes, now=monotonic),
    )


def _kinds(settings: FitSettings) -> tuple[str, ...]:
    linear = any(make(settings, name).linear_components for name in objectives_of(settings))
    return KINDS["mlp" if linear else settings.adapter]
