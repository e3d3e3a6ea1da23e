"""The closed forms that training starts from: for each kind of components, the one whose held-out retrieval is best.

Features that are in one space already (the towers of one contrastive encoder) can be better as they are, centred,
than any map learned from few instances: where all modalities have equally many columns, that is one more candidate.

The search saves time where it only compares: feature maps and ridges are compared on a sample of the training and
validation instances, on the leading components, at a few powers and dimensions. What is chosen is solved once on all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pmrl_cli.closed_form.arithmetic import arithmetic_of, as_tensor
from pmrl_cli.closed_form.columns import ProjectionFitter
from pmrl_cli.closed_form.gcca import Gcca, gcca
from pmrl_cli.closed_form.init import GccaConfig, Initialization, power_weights, scaled_init
from pmrl_cli.closed_form.projected import ProjectedData, project
from pmrl_cli.closed_form.projection import LANDMARKS, FeatureMap
from pmrl_cli.errors import DataError, UsageError
from pmrl_cli.fit.context import FitContext
from pmrl_cli.fit.plan import Plan
from pmrl_cli.fit.reduction import can_reduce
from pmrl_cli.fit.result import ClosedForm
from pmrl_cli.train.heldout import HeldOut, ValidationSet, held_out_retrieval
from pmrl_cli.train.settings import FitSettings

__all__ = ["Start", "Starts", "choose_starts"]

RIDGES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
COMPARED = (0.03, 0.3)
"""Ridges at which feature maps are compared; from the better one the search climbs to its best neighbour."""

DIMS = (16, 32, 64, 128, 256)
POWERS = (0.5, 1.0, 2.0, 3.0)

FEW_DIMS, FEW_POWERS = (32, 128), (1.0, 2.0)
"""Dimensions and powers at which feature maps and ridges are compared."""

FAST_RIDGE, FAST_POWER, FAST_DIM = 0.1, 1.0, 128
FAST_LANDMARKS = 512
"""The one closed form of each kind that ``--fast`` solves, of squashed features; and what a budget that has no room
for the search of kernels is given of them."""

KERNEL_PRODUCTS = 12.0
"""Times that one closed form of kernel components takes what a product of as many landmarks takes, per modality: what
a budget is asked for before any has been solved."""

LEADING = 1024
"""Components of all modalities together on which ridges are compared: on fewer, too small a ridge does best."""

GIVEN_DIM = 2048
"""Features as given are tried up to this many columns: contrastive encoders have fewer, and their maps are dense."""

CHOOSING_ROWS = 20_000
"""Feature maps are compared on at most this many training instances, chosen by hash."""

COMPARING = 1000
"""Validation instances that are ranked where feature maps and ridges are compared."""


@dataclass(frozen=True)
class Start:
    """Where the candidates of one kind of components start.

    Args:
        form: the closed form.
        init: its solution.
        data: the projected instances, not whitened yet.
    """

    form: ClosedForm
    init: Initialization
    data: ProjectedData


class Starts(NamedTuple):
    """What the closed forms came to.

    Args:
        best: of each kind of components, the best first.
        left_out: kinds that the budget had no room for.
        whole: whether the budget allowed all comparisons.
    """

    best: tuple[Start, ...]
    left_out: tuple[str, ...] = ()
    whole: bool = True


def choose_starts(ctx: FitContext, plan: Plan) -> Starts:
    """Return the best closed form of each kind of components, the best first.

    Both ways to keep features from running away are tried on linear components, and the better one is taken for
    kernel components too. Features as they are are tried where all modalities have equally many columns. Where those
    do best among the linear, other kinds that do worse are left out. So are linear components that are fewer than the
    dimensions asked for, where kernel ones are tried too. Where the budget has no room for a search of kernels there
    is one, as ``--fast`` has it, or none.

    Raises: UsageError if the dimension asked for is more than the components of all modalities together, of the kind
        that has most; DataError for too few instances, or a constant modality.
    """
    search = _Search(ctx, plan)
    linear = search.compared("linear")
    is_start = "linear" in plan.kinds and ("kernel" not in plan.kinds or search.fills(max(linear, key=_mrr)))
    starts = [search.solved(linear)] if is_start else []
    kernels = search.kernels(linear, needed=not starts) if "kernel" in plan.kinds else []
    left_out = ("kernel",) if "kernel" in plan.kinds and not kernels else ()
    if kernels:
        starts.append(search.solved(kernels))
    first = starts[0].form
    if first.config.features.kind == "given":
        # They share a space: what is worse than it on its own came from another one, and would only blur it.
        starts = [start for start in starts if start.form.held_out.mrr >= first.held_out.mrr]
    best = sorted(starts, key=lambda start: -start.form.held_out.mrr)
    return Starts(tuple(best), left_out, search.whole)


class _Search:
    """Compares closed forms; every projection, moment and solution is computed once."""

    def __init__(self, ctx: FitContext, plan: Plan) -> None:
        self._ctx = ctx
        self._budget, self._repeats = plan.budget, 1 + plan.refit
        self._seconds: dict[str, float] = {}
        self.whole = True
        """Whether the budget allowed all comparisons."""
        self._validation = plan.validation
        few = ctx.dataset.smallest_by_hash(plan.validation.rows, COMPARING, ctx.settings.seed)
        self._few = plan.validation.part(few)
        sample = ctx.dataset.smallest_by_hash(plan.train, CHOOSING_ROWS, ctx.settings.seed)
        fitter = partial(
            ProjectionFitter,
            ctx.dataset,
            seed=ctx.settings.seed,
            processes=ctx.processes,
            arithmetic=ctx.arithmetic,
        )
        self._sample = fitter(sample)
        self._all = self._sample if sample is plan.train else fitter(plan.train)
        self._projected: dict[FeatureMap, ProjectedData] = {}

    def kernels(self, linear: Sequence[ClosedForm], *, needed: bool) -> list[ClosedForm]:
        """Return the closed forms of kernel components that were compared; none if the budget has room for none.

        Args:
            linear: those of linear components, the best of which says whether features are squashed.
            needed: whether there is no other start.
        """
        fast = self._ctx.settings.fast
        squash = max(linear, key=_mrr).config.features.squash
        searched = FeatureMap("kernel", squash=squash, landmarks=FAST_LANDMARKS if fast else LANDMARKS)
        if (fast and needed) or self._affords(searched, 1 + self._repeats):
            return self.ridges(searched)
        one = searched._replace(landmarks=FAST_LANDMARKS)
        if fast or not (needed or self._affords(one, 2)):
            return []
        self.whole = False
        return self._at(one, FAST_RIDGE)

    def _affords(self, kernel: FeatureMap, times: int) -> bool:
        """Return whether the budget allows to solve a closed form of kernel components so many times."""
        side, on = kernel.landmarks, self._ctx.arithmetic
        square = on.send(np.ones((side, side), dtype=np.float32))
        began = self._budget.now()
        on.fetch(on.product(square, square)[:1])  # which waits for it
        one = KERNEL_PRODUCTS * len(self._ctx.dataset.modalities) * (self._budget.now() - began)
        instances = len(self._all.train) + len(self._validation.rows)
        return self._budget.allows(times * one * (1 + instances / KERNEL_PRODUCTS / side))

    def fills(self, form: ClosedForm) -> bool:
        """Return whether the components of a closed form are as many as the dimensions asked for."""
        features, asked = form.config.features, self._ctx.settings.dim
        return asked is None or features.kind == "given" or asked <= sum(self._of(features).cross.dims)

    def compared(self, kind: str) -> list[ClosedForm]:
        """Return the closed forms of every feature map of a kind that were compared."""
        if self._ctx.settings.fast:
            return self._at(FeatureMap(kind, squash=True), FAST_RIDGE) + self._given_if_comparable()
        maps = [FeatureMap(kind, squash=squash) for squash in (True, False)]
        forms = [form for features in maps for form in self.ridges(features, COMPARED)]
        best = max(forms, key=_mrr)
        forms += self._climb(
            best, [form.config.ridge for form in forms if form.config.features == best.config.features]
        )
        forms += self._given_if_comparable()
        self._keep(max(forms, key=_mrr).config.features)
        return forms

    def ridges(self, features: FeatureMap, ridges: Sequence[float] | None = None) -> list[ClosedForm]:
        """Return closed forms of a feature map at some ridges, or at those that lead to the best."""
        if self._ctx.settings.fast:
            return self._at(features, FAST_RIDGE)
        if ridges is not None:
            return [form for ridge in ridges for form in self._at(features, ridge)]
        forms = self.ridges(features, COMPARED)
        return forms + self._climb(max(forms, key=_mrr), list(COMPARED))

    def _climb(self, best: ClosedForm, done: list[float]) -> list[ClosedForm]:
        # The held-out rank has one peak along the ridge: from the better of two go on while it gets better.
        forms: list[ClosedForm] = []
        while True:
            at = RIDGES.index(best.config.ridge)
            nearby = [ridge for ridge in RIDGES[max(0, at - 1) : at + 2] if ridge not in done]
            if not nearby:
                return forms
            done += nearby
            found = [form for ridge in nearby for form in self._at(best.config.features, ridge)]
            forms += found
            best = max([best, *found], key=_mrr)

    def _at(self, features: FeatureMap, ridge: float) -> list[ClosedForm]:
        """Return the closed forms at a ridge; none, after the first of a kind, that the budget has no room for."""
        before = self._seconds.get(features.kind)
        if before is not None and not self._budget.allows(before):
            self.whole = False
            return []
        began = self._budget.now()
        forms = self._solved_at(features, ridge)
        took = self._budget.now() - began
        self._seconds[features.kind] = took if before is None else max(before, took)
        if before is None:  # solved once more on all that trains, and repeated with validation
            self._budget.keep(features.kind, self._repeats * took)
        return forms

    def _solved_at(self, features: FeatureMap, ridge: float) -> list[ClosedForm]:
        data = self._of(features)
        asked = self._ctx.settings.dim
        cross, variances = data.cross, data.variances
        if asked is None:
            cross = cross.leading(LEADING // len(cross.dims))
            variances = tuple(v[:d] for v, d in zip(variances, cross.dims, strict=True))
        fast = self._ctx.settings.fast
        few = replace(self._ctx.settings, dim=None if asked is None else min(asked, sum(cross.dims)))
        dims = _dims(few, sum(cross.dims), (FAST_DIM,) if fast else FEW_DIMS)
        solution = gcca(cross, variances, ridge=ridge, dim=max(dims), solver=self._ctx.solver, single=True)
        return self._ranked(
            features, ridge, solution, data, self._few, product((FAST_POWER,) if fast else FEW_POWERS, dims)
        )

    def _ranked(
        self,
        features: FeatureMap,
        ridge: float,
        solution: Gcca,
        data: ProjectedData,
        validation: ValidationSet,
        grid: Iterable[tuple[float, int]],
    ) -> list[ClosedForm]:
        held = data.positions(validation.rows)
        directions = []
        for array, whiten, maps in zip(data.components, solution.whiten, solution.maps, strict=True):
            on = arithmetic_of(array)
            leading = array[on.send(held), : len(maps)]
            directions.append(as_tensor(on.product(leading, on.send((whiten[:, None] * maps).astype(np.float32)))))
        device = directions[0].device
        present = torch.from_numpy(data.present[held]).to(device)
        forms = []
        for power, dim in grid:
            weight = torch.from_numpy(power_weights(solution.correlations, power).astype(np.float32)).to(device)
            quality = _quality([y[:, :dim] * weight[:dim] for y in directions], present, validation)
            forms.append(ClosedForm(GccaConfig(features, ridge, power, dim), quality))
        return self._agreed(forms)

    def _given_if_comparable(self) -> list[ClosedForm]:
        dims, settings = set(self._ctx.dataset.dims), self._ctx.settings
        if len(dims) > 1 or max(dims) > GIVEN_DIM or max(dims) < (settings.dim or 0):
            return []
        if settings.dim not in (None, *dims) and not can_reduce(settings):
            return []
        features = FeatureMap("given", squash=False)
        data = self._of(features)
        held = data.positions(self._few.rows)
        outputs = data.take(held)
        quality = _quality(outputs, torch.from_numpy(data.present[held]), self._few)
        return self._agreed([ClosedForm(GccaConfig(features, 0.0, 0.0, outputs[0].shape[1]), quality)])

    def _agreed(self, forms: list[ClosedForm]) -> list[ClosedForm]:
        # Rank 0 chooses: elsewhere a number may be rounded otherwise.
        quality = self._ctx.processes.broadcast_json([form.held_out for form in forms])
        return [replace(form, held_out=HeldOut(*of_one)) for form, of_one in zip(forms, quality, strict=True)]

    def solved(self, compared: Sequence[ClosedForm]) -> Start:
        """Solve the best of the forms that were compared on all training instances, with powers and dimensions."""
        config = _best(compared).config
        began = self._budget.now()
        data = self._of(config.features, sample=self._all is self._sample)
        if config.features.kind == "given":
            init = scaled_init(data, config, None, self._ctx.processes)
            form = _best(compared)
        else:
            solutions, found = self._whole(config, data)
            form = replace(_best(found), compared=len(found) + len(compared))
            init = scaled_init(data, form.config, solutions[form.config.ridge], self._ctx.processes)
        kind = config.features.kind
        self._budget.keep(kind, (self._repeats - 1) * max(self._seconds.get(kind, 0.0), self._budget.now() - began))
        return Start(form, init, self._projected.pop(config.features))

    def _whole(self, config: GccaConfig, data: ProjectedData) -> tuple[dict[float, Gcca], list[ClosedForm]]:
        """Return the solutions on all components, by ridge, and every power and dimension of each.

        On the leading components, where ridges were compared, too small a one does best: the next is solved as well.
        """
        settings = self._ctx.settings
        ridges = [config.ridge]
        if not settings.fast and sum(data.cross.dims) > LEADING:
            ridges += [ridge for ridge in RIDGES if ridge > config.ridge][:1]
        dims = _dims(settings, sum(data.cross.dims), (FAST_DIM,) if settings.fast else DIMS)
        powers = (FAST_POWER,) if settings.fast else POWERS
        solutions: dict[float, Gcca] = {}
        found: list[ClosedForm] = []
        took = 0.0
        for ridge in ridges:
            if solutions and not self._budget.allows(took):
                self.whole = False
                break
            began = self._budget.now()
            # What is refitted is solved again: here it only competes.
            solutions[ridge] = gcca(
                data.cross,
                data.variances,
                ridge=ridge,
                dim=max(dims),
                solver=self._ctx.solver,
                single=self._repeats > 1,
            )
            grid = product(powers, dims)
            found += self._ranked(config.features, ridge, solutions[ridge], data, self._validation, grid)
            took = self._budget.now() - began
        return solutions, found

    def _of(self, features: FeatureMap, *, sample: bool = True) -> ProjectedData:
        fitter = self._sample if sample else self._all
        if features not in self._projected or not sample:
            self._projected[features] = project(
                self._ctx.dataset,
                np.union1d(fitter.train, self._validation.rows),
                fitter.train,
                fitter.fit(features),
                cross=features.kind != "given",
                scratch=self._ctx.scratch,
                processes=self._ctx.processes,
                arithmetic=self._ctx.arithmetic,
            )
        return self._projected[features]

    def _keep(self, features: FeatureMap) -> None:
        # What lost holds as much memory as what won.
        self._projected = {key: data for key, data in self._projected.items() if key == features}


def _dims(settings: FitSettings, most: int, tried: Sequence[int]) -> Sequence[int]:
    """Return the dimensions to try: where one is asked for, that and more, which are then reduced to it."""
    asked = settings.dim
    if asked is not None and asked > most:
        raise UsageError(
            what="dimension larger than the features can fill",
            found=f"--dim {asked}",
            expected=f"{most} or less",
            next_step="Lower it.",
        )
    if asked is not None and not can_reduce(settings):
        return (asked,)  # what such a method trains is the space as it is
    return sorted({max(min(dim, most), asked or 0) for dim in tried})


def _quality(outputs: Sequence[Tensor], present: Tensor, validation: ValidationSet) -> HeldOut:
    unit = torch.nn.functional.normalize(torch.stack(list(outputs), dim=1), dim=2)
    return held_out_retrieval(unit, present, validation.labels, validation.relevance)


def _mrr(form: ClosedForm) -> float:
    return form.held_out.mrr


def _best(forms: Sequence[ClosedForm]) -> ClosedForm:
    # Ties keep the earlier one.
    best = max(forms, key=_mrr)
    if np.isnan(best.held_out.mrr):
        raise DataError(
            what="too few held-out instances",
            found="no two validation instances that share a pair of modalities",
            expected="enough to choose by (tens or more)",
            next_step="Give more instances or raise --validation.",
        )
    return replace(best, compared=len(forms))
