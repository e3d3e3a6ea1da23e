"""Which training instances to drop where some are known to be mispaired: those whose modalities disagree.

Scored by a closed form that was not fitted on them: one half of the instances fits the map that scores the other. An
instance is as suspect as its modality that agrees least with the consensus of its other modalities.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from pmrl_cli.closed_form.arithmetic import CPU, Arithmetic
from pmrl_cli.closed_form.columns import ProjectionFitter
from pmrl_cli.closed_form.init import GccaConfig, solve_gcca_init
from pmrl_cli.closed_form.projected import ProjectedData, project
from pmrl_cli.closed_form.projection import FeatureMap
from pmrl_cli.data.dataset import Dataset
from pmrl_cli.files.durable.scratch import Scratch
from pmrl_cli.retrieval.batches import Batch
from pmrl_cli.stats.consensus import agreement, reference_of

__all__ = ["drop_suspects"]

Rows = npt.NDArray[np.int64]

RIDGE, POWER, DIM = 0.3, 1.0, 64
"""The closed form that scores them: what does well everywhere without being chosen (docs/quality.md)."""

_REFERENCE = 4096  # instances among which what is near is sought
_BLOCK = 4096


def drop_suspects(
    dataset: Dataset, rows: Rows, fraction: float, *, seed: int, scratch: Scratch, arithmetic: Arithmetic = CPU
) -> Rows:
    """Return ``rows`` without the given fraction of them, the most suspect.

    Instances with fewer than two modalities are never suspect.

    Args:
        dataset: what is read.
        rows: (n,) row numbers, ascending.
        fraction: to leave out, in [0, 1).
        seed: of the hash that halves them.
        scratch: where components live.
        arithmetic: what closed forms compute with.
    """
    halves = dataset.id_hashes(seed)[rows] % np.uint64(2) == 0
    scores = np.full(len(rows), np.nan)
    for fits in (halves, ~halves):
        scores[~fits] = _agreement(dataset, rows[fits], rows[~fits], seed, scratch, arithmetic)
    # The two halves were scored by two maps: each gives up the same fraction.
    kept = np.ones(len(rows), dtype=bool)
    for half in (np.flatnonzero(halves), np.flatnonzero(~halves)):
        order = half[np.argsort(scores[half], kind="stable")]  # NaN last
        kept[order[: round(fraction * np.isfinite(scores[half]).sum())]] = False
    return rows[kept]


def _agreement(
    dataset: Dataset, fitting: Rows, evaluated: Rows, seed: int, scratch: Scratch, arithmetic: Arithmetic
) -> npt.NDArray[np.float64]:
    features = FeatureMap("linear", squash=True)
    projections = ProjectionFitter(dataset, fitting, seed=seed, arithmetic=arithmetic).fit(features)
    rows = np.union1d(fitting, evaluated)
    data = project(dataset, rows, fitting, projections, cross=True, scratch=scratch, arithmetic=arithmetic)
    dim = min(DIM, sum(data.cross.dims))
    init = solve_gcca_init(data, GccaConfig(features, RIDGE, POWER, dim), "gcca")
    maps = [w[:, None] * m for w, m in zip(init.whiten, init.maps, strict=True)]
    reference = reference_of(_embed(data, maps, dataset.smallest_by_hash(evaluated, _REFERENCE, seed)))
    scores = np.full(len(evaluated), np.nan)
    for first in range(0, len(evaluated), _BLOCK):
        found = agreement(reference, _embed(data, maps, evaluated[first : first + _BLOCK])).score
        known = ~np.isnan(found).all(axis=1)
        scores[first : first + _BLOCK][known] = np.nanmin(found[known], axis=1)
    return scores


def _embed(data: ProjectedData, maps: list[npt.NDArray[np.float32]], rows: Rows) -> Batch:
    at = data.positions(rows)
    outputs = [torch.from_numpy(taken.numpy() @ m) for taken, m in zip(data.take(at), maps, strict=True)]
    present = torch.from_numpy(data.present[at])
    unit = torch.nn.functional.normalize(torch.stack(outputs, dim=1), dim=2) * present[:, :, None]
    return Batch(rows, unit, present)
