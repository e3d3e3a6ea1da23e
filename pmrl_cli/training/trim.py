"""Which training instances to trust where some are known to be mispaired: those whose modalities agree.

Judged by a closed form that did not see them: one half of the instances fits the map that scores the other. An
instance is as suspect as its modality that agrees least with the consensus of its other modalities.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from pmrl_cli.data.dataset import Dataset
from pmrl_cli.data.ids import hash_ids
from pmrl_cli.files.durable.scratch import Scratch
from pmrl_cli.projection import FeatureMap
from pmrl_cli.retrieval.batches import Batch
from pmrl_cli.stats.consensus import agreement, reference_of
from pmrl_cli.training.bank import Bank, build_bank, chosen_by_hash, fit_projections
from pmrl_cli.training.heldout import HeldOut
from pmrl_cli.training.start import Setting, solve_start

__all__ = ["trusted"]

Rows = npt.NDArray[np.int64]

RIDGE, POWER, DIM = 0.3, 1.0, 64
"""The closed form that judges: what does well everywhere without being chosen (docs/quality.md)."""

_REFERENCE = 4096  # instances among which what is near is sought
_BLOCK = 4096


def trusted(dataset: Dataset, rows: Rows, share: float, *, seed: int, scratch: Scratch) -> Rows:
    """Return ``rows`` without the given share of them, the most suspect.

    Instances with fewer than two modalities are never suspect.

    Args:
        dataset: what is read.
        rows: (n,) row numbers, ascending.
        share: to leave out, in [0, 1).
        seed: of the hash that halves them.
        scratch: where scores live.
    """
    halves = hash_ids(dataset.ids.take(rows), seed) % np.uint64(2) == 0
    scores = np.full(len(rows), np.nan)
    for fits in (halves, ~halves):
        scores[~fits] = _agreement(dataset, rows[fits], rows[~fits], seed, scratch)
    # The two halves were scored by two maps: each gives up the same share.
    kept = np.ones(len(rows), dtype=bool)
    for half in (np.flatnonzero(halves), np.flatnonzero(~halves)):
        order = half[np.argsort(scores[half], kind="stable")]  # NaN last
        kept[order[: round(share * np.isfinite(scores[half]).sum())]] = False
    return rows[kept]


def _agreement(dataset: Dataset, fitting: Rows, judged: Rows, seed: int, scratch: Scratch) -> npt.NDArray[np.float64]:
    features = FeatureMap("linear", squash=True)
    projections = fit_projections(dataset, fitting, features, seed=seed)
    rows = np.union1d(fitting, judged)
    bank = build_bank(dataset, rows, fitting, projections, cross=True, scratch=scratch)
    dim = min(DIM, sum(bank.cross.dims))
    start = solve_start(bank, Setting(features, RIDGE, POWER, dim, HeldOut(np.nan, np.nan), 1), "gcca")
    maps = [w[:, None] * m for w, m in zip(start.whiten, start.maps, strict=True)]
    reference = reference_of(_embed(bank, maps, chosen_by_hash(dataset, judged, _REFERENCE, seed)))
    scores = np.full(len(judged), np.nan)
    for first in range(0, len(judged), _BLOCK):
        found = agreement(reference, _embed(bank, maps, judged[first : first + _BLOCK])).score
        known = ~np.isnan(found).all(axis=1)
        scores[first : first + _BLOCK][known] = np.nanmin(found[known], axis=1)
    return scores


def _embed(bank: Bank, maps: list[npt.NDArray[np.float32]], rows: Rows) -> Batch:
    at = bank.positions(rows)
    outputs = [torch.from_numpy(scores[at] @ m) for scores, m in zip(bank.scores, maps, strict=True)]
    present = torch.from_numpy(bank.present[at])
    unit = torch.nn.functional.normalize(torch.stack(outputs, dim=1), dim=2) * present[:, :, None]
    return Batch(rows, unit, present)
