"""Where training starts: the closed-form GCCA map whose held-out retrieval is best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pmrl_cli.gcca import gcca
from pmrl_cli.training.bank import Bank
from pmrl_cli.training.heldout import HeldOut, held_out_retrieval

__all__ = ["Start", "choose_start"]

RIDGES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
DIMS = (16, 32, 64, 128, 256)
POWERS = (0.5, 1.0, 2.0)


@dataclass(frozen=True)
class Start:
    """The chosen closed-form solution.

    Args:
        ridge: relative ridge of the whitening.
        power: exponent q of the correlations that weight the directions.
        dim: dimension d of the shared space.
        whiten: per modality (p_m,) factors on the scores.
        maps: per modality (p_m, d) from whitened scores to outputs of mean squared length d.
        correlations: (d,) of the shared directions, in [0, 1].
        held_out: its retrieval on validation.
        tried: how many settings were compared.
    """

    ridge: float
    power: float
    dim: int
    whiten: tuple[npt.NDArray[np.float32], ...]
    maps: tuple[npt.NDArray[np.float32], ...]
    correlations: npt.NDArray[np.float64]
    held_out: HeldOut
    tried: int


def _dims(asked: int | None, most: int) -> Sequence[int]:
    if asked is not None:
        return (min(asked, most),)
    return sorted({min(dim, most) for dim in DIMS})


def choose_start(bank: Bank, validation: npt.NDArray[np.int64], *, dim: int | None) -> Start:
    """Solve GCCA for every ridge and keep the setting with the best held-out mean reciprocal rank.

    One eigen-decomposition a ridge; dimensions and powers are read off it. Ties keep the earlier setting.

    Args:
        bank: scores and moments.
        validation: rows of the held-out instances.
        dim: fixed dimension of the shared space, or None to choose it.
    """
    dims = _dims(dim, sum(bank.cross.dims))
    present = torch.from_numpy(bank.present[validation])
    held = [torch.from_numpy(np.ascontiguousarray(scores[validation])) for scores in bank.scores]
    best: Start | None = None
    tried = 0
    for ridge in RIDGES:
        solution = gcca(bank.cross, bank.variances, ridge=ridge, dim=max(dims))
        directions = [
            scores @ torch.from_numpy((whiten[:, None] * maps).astype(np.float32))
            for scores, whiten, maps in zip(held, solution.whiten, solution.maps, strict=True)
        ]
        for power in POWERS:
            weight = solution.correlations**power
            for d in dims:
                tried += 1
                weighted = torch.from_numpy(weight[:d].astype(np.float32))
                embeddings = _unit(torch.stack([y[:, :d] * weighted for y in directions], dim=1))
                quality = held_out_retrieval(embeddings, present)
                if best is None or quality.mrr > best.held_out.mrr:
                    maps = tuple((m[:, :d] * weight[:d]).astype(np.float32) for m in solution.maps)
                    whiten = tuple(w.astype(np.float32) for w in solution.whiten)
                    best = Start(ridge, power, d, whiten, maps, solution.correlations[:d], quality, tried)
    assert best is not None
    return _scaled(best, bank, tried)


def _unit(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors, dim=2)


def _scaled(start: Start, bank: Bank, tried: int) -> Start:
    # Outputs of root mean square 1 per dimension: the residual branch, whose weights start at ordinary sizes,
    # then moves an embedding neither negligibly nor at a stroke. Unit-length embeddings do not see the factor.
    maps = []
    for whiten, variance, m in zip(start.whiten, bank.variances, start.maps, strict=True):
        power = float(np.sum((variance * whiten**2)[:, None] * np.square(m, dtype=np.float64)))
        maps.append((m * np.sqrt(start.dim / power) if power > 0 else m).astype(np.float32))
    return Start(
        start.ridge, start.power, start.dim, start.whiten, tuple(maps), start.correlations, start.held_out, tried
    )
