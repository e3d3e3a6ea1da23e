"""Where training starts: the closed-form GCCA map whose held-out retrieval is best.

Features that are in one space already (the towers of one contrastive encoder) can be better as they are, centred,
than any map learned from few instances: where all modalities have equally many columns, that is one more candidate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pmrl_cli.data.dataset import Dataset
from pmrl_cli.errors import UsageError
from pmrl_cli.gcca import gcca
from pmrl_cli.training.bank import Bank, given_projections
from pmrl_cli.training.heldout import HeldOut, held_out_retrieval

__all__ = ["Setting", "Start", "choose_setting", "given_setting", "solve_start"]

RIDGES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
DIMS = (16, 32, 64, 128, 256)
POWERS = (0.5, 1.0, 2.0)

GIVEN_DIM = 2048
"""Features as given are tried up to this many columns: contrastive encoders have fewer, and their maps are dense."""


@dataclass(frozen=True)
class Setting:
    """What validation chooses of the closed form.

    Args:
        ridge: relative ridge of the whitening.
        power: exponent q of the correlations that weight the directions.
        dim: dimension d of the shared space.
        given: the features as they are, centred, were better than any GCCA; ridge and power are then 0.
        held_out: its retrieval on validation.
        tried: how many settings were compared.
    """

    ridge: float
    power: float
    dim: int
    given: bool
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


def given_setting(
    dataset: Dataset, train: npt.NDArray[np.bool_], validation: npt.NDArray[np.int64], *, dim: int | None
) -> Setting | None:
    """Return the setting that leaves features as they are, centred, judged on validation.

    None where the modalities differ in their number of columns, have more than ``GIVEN_DIM``, or ``dim`` asks for
    another one.
    """
    dims = set(dataset.dims)
    if len(dims) > 1 or max(dims) > GIVEN_DIM or dim not in (None, *dims):
        return None
    projections = given_projections(dataset, train)
    present = dataset.present[validation]
    outputs = [
        torch.from_numpy(projection.scores(features.read(validation)) * present[:, [m]])
        for m, (projection, features) in enumerate(zip(projections, dataset.modalities, strict=True))
    ]
    return Setting(0.0, 0.0, dims.pop(), given=True, held_out=_judge(outputs, torch.from_numpy(present)), tried=1)


def choose_setting(bank: Bank, validation: npt.NDArray[np.int64], *, dim: int | None) -> Setting:
    """Solve GCCA for every ridge and return the setting with the best held-out mean reciprocal rank.

    One eigen-decomposition a ridge; dimensions and powers are read off it. Ties keep the earlier setting.

    Args:
        bank: scores and moments.
        validation: rows of the held-out instances.
        dim: fixed dimension of the shared space, or None to choose it.

    Raises: UsageError if ``dim`` is more than the scores of all modalities together.
    """
    dims = _dims(dim, sum(bank.cross.dims))
    present = torch.from_numpy(bank.present[validation])
    held = [torch.from_numpy(np.ascontiguousarray(scores[validation])) for scores in bank.scores]
    found: list[Setting] = []
    for ridge in RIDGES:
        solution = gcca(bank.cross, bank.variances, ridge=ridge, dim=max(dims))
        directions = [
            scores @ torch.from_numpy((whiten[:, None] * maps).astype(np.float32))
            for scores, whiten, maps in zip(held, solution.whiten, solution.maps, strict=True)
        ]
        for power in POWERS:
            weight = torch.from_numpy(_weights(solution.correlations, power).astype(np.float32))
            for d in dims:
                quality = _judge([y[:, :d] * weight[:d] for y in directions], present)
                found.append(Setting(ridge, power, d, given=False, held_out=quality, tried=0))
    return replace(max(found, key=lambda setting: setting.held_out.mrr), tried=len(found))


def solve_start(bank: Bank, setting: Setting) -> Start:
    """Solve the closed form at a setting.

    The maps are scaled to outputs of root mean square 1 per dimension: the residual branch, whose weights start at
    ordinary sizes, then moves an embedding neither negligibly nor at a stroke. Unit-length embeddings do not see it.
    """
    if setting.given:
        identity = tuple(np.eye(setting.dim, dtype=np.float32) for _ in bank.projections)
        return Start(tuple(np.ones(setting.dim, dtype=np.float32) for _ in bank.projections), identity)
    solution = gcca(bank.cross, bank.variances, ridge=setting.ridge, dim=setting.dim)
    weight = _weights(solution.correlations, setting.power)
    maps = []
    for whiten, variance, directions in zip(solution.whiten, bank.variances, solution.maps, strict=True):
        weighted = directions * weight
        power = float(np.sum((variance * whiten**2)[:, None] * weighted**2))
        maps.append((weighted * np.sqrt(setting.dim / power) if power > 0 else weighted).astype(np.float32))
    return Start(tuple(w.astype(np.float32) for w in solution.whiten), tuple(maps))
