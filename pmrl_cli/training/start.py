"""Where training starts: the closed-form map whose held-out retrieval is best.

Features that are in one space already (the towers of one contrastive encoder) can be better as they are, centred,
than any map learned from few instances: where all modalities have equally many columns, that is one more candidate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pmrl_cli.data.dataset import Dataset
from pmrl_cli.errors import DataError, UsageError
from pmrl_cli.files.durable.scratch import Scratch
from pmrl_cli.gcca import gcca
from pmrl_cli.projection import FeatureMap, Projection
from pmrl_cli.training.bank import Bank, build_bank, chosen_by_hash, fit_projections
from pmrl_cli.training.heldout import HeldOut, held_out_retrieval
from pmrl_cli.world import ALONE, World, first_arrays

__all__ = ["Setting", "Start", "choose_settings", "solve_start"]

RIDGES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
COMPARED = (0.03, 0.3)
"""Ridges at which feature maps are compared; the best map is then solved with all."""

DIMS = (16, 32, 64, 128, 256)
POWERS = (0.5, 1.0, 2.0, 3.0)

GIVEN_DIM = 2048
"""Features as given are tried up to this many columns: contrastive encoders have fewer, and their maps are dense."""

CHOOSING_ROWS = 20_000
"""Feature maps are compared on at most this many training instances, chosen by hash."""


@dataclass(frozen=True)
class Setting:
    """What validation chooses of the closed form.

    Args:
        features: what its scores are made of.
        ridge: relative ridge of the whitening; 0 for features as given, as is the power.
        power: exponent q of the correlations that weight the directions.
        dim: dimension d of the shared space.
        held_out: its retrieval on validation.
        tried: how many settings were compared, of all feature maps of its kind.
    """

    features: FeatureMap
    ridge: float
    power: float
    dim: int
    held_out: HeldOut
    tried: int


@dataclass(frozen=True)
class Start:
    """A closed-form solution as training starts from it.

    Args:
        whiten: per modality (p_m,) factors on the scores.
        maps: per modality (p_m, d) from whitened scores to outputs of mean squared length d.
    """

    whiten: tuple[npt.NDArray[np.float32], ...]
    maps: tuple[npt.NDArray[np.float32], ...]


def _dims(asked: int | None, most: int) -> Sequence[int]:
    if asked is not None and asked > most:
        what = "dimension larger than the features can fill"
        raise UsageError(what, found=f"--dim {asked}", expected=f"{most} or less", next_step="Lower it.")
    if asked is not None:
        return (asked,)
    return sorted({min(dim, most) for dim in DIMS})


def _judge(outputs: Sequence[Tensor], present: Tensor) -> HeldOut:
    return held_out_retrieval(torch.nn.functional.normalize(torch.stack(list(outputs), dim=1), dim=2), present)


def _weights(correlations: npt.NDArray[np.float64], power: float) -> npt.NDArray[np.float64]:
    # Where nothing correlates, all directions are as good: weighting them by 0 would map everything to the origin.
    return correlations**power if correlations.any() else np.ones_like(correlations)


def _given_setting(bank: Bank, held: npt.NDArray[np.int64]) -> Setting:
    outputs = [torch.from_numpy(np.ascontiguousarray(scores[held])) for scores in bank.scores]
    quality = _judge(outputs, torch.from_numpy(bank.present[held]))
    return Setting(FeatureMap("given", squash=False), 0.0, 0.0, outputs[0].shape[1], quality, tried=1)


def _solved_settings(
    bank: Bank,
    held: npt.NDArray[np.int64],
    features: FeatureMap,
    ridges: Sequence[float],
    *,
    dim: int | None,
    solver: str,
) -> Iterator[Setting]:
    # One eigen-decomposition a ridge; dimensions and powers are read off it.
    dims = _dims(dim, sum(bank.cross.dims))
    present = torch.from_numpy(bank.present[held])
    scores_held = [torch.from_numpy(np.ascontiguousarray(scores[held])) for scores in bank.scores]
    for ridge in ridges:
        solution = gcca(bank.cross, bank.variances, ridge=ridge, dim=max(dims), solver=solver)
        directions = [
            scores @ torch.from_numpy((whiten[:, None] * maps).astype(np.float32))
            for scores, whiten, maps in zip(scores_held, solution.whiten, solution.maps, strict=True)
        ]
        for power in POWERS:
            weight = torch.from_numpy(_weights(solution.correlations, power).astype(np.float32))
            for d in dims:
                quality = _judge([y[:, :d] * weight[:d] for y in directions], present)
                yield Setting(features, ridge, power, d, held_out=quality, tried=1)


def _best(settings: Sequence[Setting]) -> Setting:
    # Ties keep the earlier one.
    best = max(settings, key=lambda setting: setting.held_out.mrr)
    if np.isnan(best.held_out.mrr):
        what = "too few held-out instances"
        raise DataError(
            what,
            found="no two validation instances that share a pair of modalities",
            expected="enough to choose by (tens or more)",
            next_step="Give more instances or raise --validation.",
        )
    return replace(best, tried=sum(setting.tried for setting in settings))


def choose_settings(
    dataset: Dataset,
    train: npt.NDArray[np.int64],
    validation: npt.NDArray[np.int64],
    kinds: Sequence[str],
    *,
    dim: int | None,
    solver: str,
    seed: int,
    scratch: Scratch,
    world: World = ALONE,
) -> list[tuple[Setting, Bank]]:
    """Return, for each kind of scores, the setting with the best held-out mean reciprocal rank, and its bank.

    Both ways to keep features from running away are tried, and for linear scores the features as they are, with
    every ridge, power and dimension. Where features as they are do best among the linear, other kinds that do worse
    are left out.

    Args:
        dataset: what is read.
        train: (n_train,) row numbers of the instances that train, ascending.
        validation: (n_validation,) row numbers of those that choose, ascending.
        kinds: ``linear``, ``kernel`` or both.
        dim: fixed dimension of the shared space, or None to choose it.
        solver: closed form, one of ``gcca.SOLVERS``.
        seed: of the hashes that choose rows where there are more than needed.
        scratch: where scores live.
        world: the processes that share the training instances.

    Raises: UsageError if ``dim`` is more than the scores of all modalities together; DataError for too few
        instances, or a constant modality.
    """
    sample = chosen_by_hash(dataset, train, CHOOSING_ROWS, seed)
    linear: dict[bool, tuple[Projection, ...]] = {}

    def bank_of(features: FeatureMap, rows: npt.NDArray[np.int64]) -> Bank:
        fitted = linear.get(features.squash) if features.kind == "kernel" and rows is sample else None
        projections = fit_projections(dataset, rows, features, seed=seed, linear=fitted, world=world)
        if features.kind == "linear":
            linear[features.squash] = projections
        return build_bank(
            dataset,
            np.union1d(rows, validation),
            rows,
            projections,
            cross=features.kind != "given",
            scratch=scratch,
            world=world,
        )

    def judged(bank: Bank, features: FeatureMap, ridges: Sequence[float]) -> Setting:
        held = bank.positions(validation)
        if features.kind == "given":
            found = [_given_setting(bank, held)]
        else:
            found = list(_solved_settings(bank, held, features, ridges, dim=dim, solver=solver))
        # Rank 0 chooses: elsewhere a number may be rounded otherwise.
        quality = world.agree([setting.held_out for setting in found])
        return _best([replace(s, held_out=HeldOut(*of_one)) for s, of_one in zip(found, quality, strict=True)])

    chosen: list[tuple[Setting, Bank]] = []
    for kind in kinds:
        maps = [FeatureMap(kind, squash=squash) for squash in (False, True)]
        dims = set(dataset.dims)
        if kind == "linear" and len(dims) == 1 and max(dims) <= GIVEN_DIM and dim in (None, *dims):
            maps.append(FeatureMap("given", squash=False))
        settings: list[Setting] = []
        kept: Bank | None = None
        for features in maps:
            bank = bank_of(features, sample)
            settings.append(judged(bank, features, COMPARED))
            if kept is None or settings[-1] is _best_of(settings):
                kept = bank
        best = _best(settings)
        if kept is None or sample is not train:
            kept = bank_of(best.features, train)
        solved = judged(kept, best.features, RIDGES)
        best = replace(solved, tried=best.tried + solved.tried)
        chosen.append((best, kept))
    if chosen[0][0].features.kind == "given":
        # They share a space: what is worse than it on its own came from another one, and would only blur it.
        chosen = [one for one in chosen if one[0].held_out.mrr >= chosen[0][0].held_out.mrr]
    return chosen


def _best_of(settings: Sequence[Setting]) -> Setting:
    return max(settings, key=lambda setting: setting.held_out.mrr)


def solve_start(bank: Bank, setting: Setting, solver: str, world: World = ALONE) -> Start:
    """Solve the closed form at a setting.

    The maps are scaled to outputs of root mean square 1 per dimension: the residual branch, whose weights start at
    ordinary sizes, then moves an embedding neither negligibly nor at a stroke. Unit-length embeddings do not see it.
    """
    if setting.features.kind == "given":
        identity = tuple(np.eye(setting.dim, dtype=np.float32) for _ in bank.projections)
        return Start(tuple(np.ones(setting.dim, dtype=np.float32) for _ in bank.projections), identity)
    solution = gcca(bank.cross, bank.variances, ridge=setting.ridge, dim=setting.dim, solver=solver)
    weight = _weights(solution.correlations, setting.power)
    maps = []
    for whiten, variance, directions in zip(solution.whiten, bank.variances, solution.maps, strict=True):
        weighted = directions * weight
        power = float(np.sum((variance * whiten**2)[:, None] * weighted**2))
        maps.append((weighted * np.sqrt(setting.dim / power) if power > 0 else weighted).astype(np.float32))
    arrays = {f"whiten{m}": w.astype(np.float32) for m, w in enumerate(solution.whiten)}
    arrays |= {f"map{m}": directions for m, directions in enumerate(maps)}
    agreed = first_arrays(world, arrays)  # an eigenvector may have the other sign elsewhere
    return Start(*(tuple(agreed[f"{name}{m}"] for m in range(len(maps))) for name in ("whiten", "map")))
