"""The closed forms that training starts from: for each kind of components, the one whose held-out retrieval is best.

Features that are in one space already (the towers of one contrastive encoder) can be better as they are, centred,
than any map learned from few instances: where all modalities have equally many columns, that is one more candidate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from pmrl_cli.closed_form.columns import ProjectionFitter
from pmrl_cli.closed_form.gcca import gcca
from pmrl_cli.closed_form.init import GccaConfig, power_weights
from pmrl_cli.closed_form.projected import ProjectedData, project
from pmrl_cli.closed_form.projection import FeatureMap
from pmrl_cli.errors import DataError, UsageError
from pmrl_cli.fit.context import FitContext
from pmrl_cli.fit.plan import Plan
from pmrl_cli.fit.result import ClosedForm
from pmrl_cli.training.heldout import HeldOut, ValidationSet, held_out_retrieval
from pmrl_cli.training.run import make, objectives_of
from pmrl_cli.training.settings import FitSettings

__all__ = ["choose_starts"]

RIDGES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
COMPARED = (0.03, 0.3)
"""Ridges at which feature maps are compared; the best map is then solved with all."""

DIMS = (16, 32, 64, 128, 256)
POWERS = (0.5, 1.0, 2.0, 3.0)

GIVEN_DIM = 2048
"""Features as given are tried up to this many columns: contrastive encoders have fewer, and their maps are dense."""

CHOOSING_ROWS = 20_000
"""Feature maps are compared on at most this many training instances, chosen by hash."""

KINDS = {"linear": ("linear",), "mlp": ("linear",), "kernel": ("kernel",), "auto": ("linear", "kernel")}
"""The kinds of components that each ``--adapter`` tries."""


class _Projector:
    """Projects the data by each feature map that is compared.

    Maps are compared on a sample of the training instances; what is chosen is fitted on all of them.
    """

    def __init__(self, ctx: FitContext, plan: Plan) -> None:
        self._ctx, self._validation = ctx, plan.validation.rows
        sample = ctx.dataset.smallest_by_hash(plan.train, CHOOSING_ROWS, ctx.settings.seed)
        self._sample = ProjectionFitter(ctx.dataset, sample, seed=ctx.settings.seed, world=ctx.world)
        self.samples = sample is not plan.train
        self._all = (
            ProjectionFitter(ctx.dataset, plan.train, seed=ctx.settings.seed, world=ctx.world)
            if self.samples
            else self._sample
        )

    def project(self, features: FeatureMap, *, sample: bool) -> ProjectedData:
        fitter = self._sample if sample else self._all
        return project(
            self._ctx.dataset,
            np.union1d(fitter.train, self._validation),
            fitter.train,
            fitter.fit(features),
            cross=features.kind != "given",
            scratch=self._ctx.scratch,
            world=self._ctx.world,
        )


def choose_starts(ctx: FitContext, plan: Plan) -> list[tuple[ClosedForm, ProjectedData]]:
    """Return, for each kind of components, the best closed form and the projected data.

    Both ways to keep features from running away are tried, and for linear components the features as they are, with
    every ridge, power and dimension. Where features as they are do best among the linear, other kinds that do worse
    are left out.

    Raises: UsageError if the dimension asked for is more than the components of all modalities together; DataError
        for too few instances, or a constant modality.
    """
    projector = _Projector(ctx, plan)
    starts = [_best_of_kind(ctx, plan, kind, projector) for kind in _kinds(ctx.settings)]
    first = starts[0][0]
    if first.config.features.kind == "given":
        # They share a space: what is worse than it on its own came from another one, and would only blur it.
        starts = [start for start in starts if start[0].held_out.mrr >= first.held_out.mrr]
    return starts


def _kinds(settings: FitSettings) -> tuple[str, ...]:
    linear = any(make(settings, name).linear_components for name in objectives_of(settings))
    return KINDS["mlp" if linear else settings.adapter]


def _best_of_kind(ctx: FitContext, plan: Plan, kind: str, projector: _Projector) -> tuple[ClosedForm, ProjectedData]:
    maps = [FeatureMap(kind, squash=squash) for squash in (False, True)]
    dims = set(ctx.dataset.dims)
    if kind == "linear" and len(dims) == 1 and max(dims) <= GIVEN_DIM and ctx.settings.dim in (None, *dims):
        maps.append(FeatureMap("given", squash=False))
    found: list[ClosedForm] = []
    kept: ProjectedData | None = None
    for features in maps:
        data = projector.project(features, sample=True)
        found.append(_best(_judged(ctx, plan, data, features, COMPARED)))
        if kept is None or found[-1] is max(found, key=lambda form: form.held_out.mrr):
            kept = data
    best = _best(found)
    if kept is None or projector.samples:
        kept = projector.project(best.config.features, sample=False)
    solved = _best(_judged(ctx, plan, kept, best.config.features, RIDGES))
    return replace(solved, compared=best.compared + solved.compared), kept


def _judged(
    ctx: FitContext, plan: Plan, data: ProjectedData, features: FeatureMap, ridges: Sequence[float]
) -> list[ClosedForm]:
    if features.kind == "given":
        found = [_given(data, plan.validation)]
    else:
        found = list(_solved(data, plan.validation, features, ridges, dim=ctx.settings.dim, solver=ctx.solver))
    # Rank 0 chooses: elsewhere a number may be rounded otherwise.
    quality = ctx.world.agree([form.held_out for form in found])
    return [replace(form, held_out=HeldOut(*of_one)) for form, of_one in zip(found, quality, strict=True)]


def _given(data: ProjectedData, validation: ValidationSet) -> ClosedForm:
    held = data.positions(validation.rows)
    outputs = [torch.from_numpy(np.ascontiguousarray(components[held])) for components in data.components]
    quality = _judge(outputs, torch.from_numpy(data.present[held]), validation)
    return ClosedForm(GccaConfig(FeatureMap("given", squash=False), 0.0, 0.0, outputs[0].shape[1]), quality)


def _solved(
    data: ProjectedData,
    validation: ValidationSet,
    features: FeatureMap,
    ridges: Sequence[float],
    *,
    dim: int | None,
    solver: str,
) -> Iterator[ClosedForm]:
    # One eigen-decomposition a ridge; dimensions and powers are read off it.
    dims = _dims(dim, sum(data.cross.dims))
    held = data.positions(validation.rows)
    present = torch.from_numpy(data.present[held])
    held_out = [torch.from_numpy(np.ascontiguousarray(components[held])) for components in data.components]
    for ridge in ridges:
        solution = gcca(data.cross, data.variances, ridge=ridge, dim=max(dims), solver=solver)
        directions = [
            components @ torch.from_numpy((whiten[:, None] * maps).astype(np.float32))
            for components, whiten, maps in zip(held_out, solution.whiten, solution.maps, strict=True)
        ]
        for power in POWERS:
            weight = torch.from_numpy(power_weights(solution.correlations, power).astype(np.float32))
            for d in dims:
                quality = _judge([y[:, :d] * weight[:d] for y in directions], present, validation)
                yield ClosedForm(GccaConfig(features, ridge, power, d), quality)


def _dims(asked: int | None, most: int) -> Sequence[int]:
    if asked is not None and asked > most:
        what = "dimension larger than the features can fill"
        raise UsageError(what, found=f"--dim {asked}", expected=f"{most} or less", next_step="Lower it.")
    if asked is not None:
        return (asked,)
    return sorted({min(dim, most) for dim in DIMS})


def _judge(outputs: Sequence[Tensor], present: Tensor, validation: ValidationSet) -> HeldOut:
    vectors = torch.nn.functional.normalize(torch.stack(list(outputs), dim=1), dim=2)
    return held_out_retrieval(vectors, present, validation.labels, validation.relevance)


def _best(forms: Sequence[ClosedForm]) -> ClosedForm:
    # Ties keep the earlier one.
    best = max(forms, key=lambda form: form.held_out.mrr)
    if np.isnan(best.held_out.mrr):
        what = "too few held-out instances"
        raise DataError(
            what,
            found="no two validation instances that share a pair of modalities",
            expected="enough to choose by (tens or more)",
            next_step="Give more instances or raise --validation.",
        )
    return replace(best, compared=sum(form.compared for form in forms))
