"""A whole fit: split, bank, closed-form start, training."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from pmrl_cli.adapters import Adapters
from pmrl_cli.data.dataset import Dataset
from pmrl_cli.data.ids import hash_ids
from pmrl_cli.data.split import TEST, TRAIN, VALIDATION, split_instances
from pmrl_cli.errors import DataError
from pmrl_cli.files.scratch import Scratch
from pmrl_cli.gcca import Projection
from pmrl_cli.objectives import make_objective
from pmrl_cli.training.bank import Bank, build_bank
from pmrl_cli.training.checkpoint import Checkpoint
from pmrl_cli.training.devices import choose_device, choose_precision
from pmrl_cli.training.heldout import HELD_OUT_LIMIT
from pmrl_cli.training.loop import Progress, Schedule, schedule, train
from pmrl_cli.training.settings import FitSettings
from pmrl_cli.training.start import Start, choose_start

__all__ = ["Fitted", "fit"]

HIDDEN = 256
"""Width of the residual MLP."""


@dataclass(frozen=True)
class Fitted:
    """A trained alignment and the record of how it came about.

    Args:
        names: modalities, in order.
        projections: per modality, features to whitened scores.
        adapters: whitened scores to the shared space, best weights, CPU, evaluation mode.
        settings: as asked.
        plan: schedule that resulted.
        start: the closed-form start.
        history: evaluations, step 0 first.
        best: the evaluation whose weights were kept.
        learned: the objective's trained settings.
        counts: instances per part (train, validation, test).
        seen: sorted 64-bit hashes (seed 0) of the ids that trained, and of those that chose.
        inputs: what was fitted, by modality: rows, dim, digest.
        ids_digest: SHA-256 of the ids in order.
        device: where it ran.
    """

    names: tuple[str, ...]
    projections: tuple[Projection, ...]
    adapters: Adapters
    settings: FitSettings
    plan: Schedule
    start: Start
    history: tuple[Progress, ...]
    best: Progress
    learned: dict[str, float]
    counts: dict[str, int]
    seen: dict[str, npt.NDArray[np.uint64]]
    inputs: dict[str, dict[str, object]]
    ids_digest: str
    device: str


def _fingerprint(dataset: Dataset, settings: FitSettings, start: Start, ids_digest: str) -> dict[str, str]:
    closed_form = hashlib.sha256()
    for array in (*start.whiten, *start.maps):
        closed_form.update(array.tobytes())
    return {
        **{f"data of {f.name}": f.digest for f in dataset.modalities},
        "ids": ids_digest,
        **{f"setting {name}": json.dumps(value, sort_keys=True) for name, value in settings.as_dict().items()},
        "closed-form start (other threads or versions round otherwise)": closed_form.hexdigest(),
    }


def _validation_rows(dataset: Dataset, parts: npt.NDArray[np.int8], seed: int) -> npt.NDArray[np.int64]:
    rows = np.flatnonzero((parts == VALIDATION) & (dataset.present.sum(axis=1) >= 2))
    if len(rows) > HELD_OUT_LIMIT:
        order = np.argsort(hash_ids(dataset.ids.take(rows), seed), kind="stable")
        rows = np.sort(rows[order[:HELD_OUT_LIMIT]])
    return rows


def _whitened(bank: Bank, start: Start) -> tuple[Projection, ...]:
    # In place: the bank is ours, and a second copy of it would double the largest thing in memory.
    for scores, whiten in zip(bank.scores, start.whiten, strict=True):
        for first in range(0, len(scores), 65536):
            scores[first : first + 65536] *= whiten
    return tuple(
        replace(projection, basis=projection.basis * whiten)
        for projection, whiten in zip(bank.projections, start.whiten, strict=True)
    )


def fit(
    dataset: Dataset,
    settings: FitSettings,
    *,
    device: str = "auto",
    max_memory: int | None = None,
    checkpoint: Path | None = None,
    stage: Callable[[str], None] = lambda _: None,
    report: Callable[[Progress, Schedule], None] = lambda *_: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Fitted:
    """Fit adapters to a data set.

    Args:
        dataset: two modalities or more.
        settings: with the data they determine the result.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        max_memory: bytes for working arrays; beyond it they live on disk.
        checkpoint: folder of the resumable state; None keeps none.
        stage: told what is being done before training.
        report: called at each evaluation.
        should_stop: asked after each step.

    Raises: DataError for data that cannot be fitted; UsageError for settings; ResourceError for a device that is
        not there; StateError for a checkpoint of another fit; DivergedError; Interrupted.
    """
    chosen = choose_device(device)
    bf16 = choose_precision(settings.precision, chosen)
    objective = make_objective(settings.objective, settings.objective_settings)
    if len(dataset.modalities) < 2:
        what = "alignment needs at least two modalities"
        raise DataError(
            what, found=f"only {', '.join(dataset.names)}", expected="two or more", next_step="Give another modality."
        )
    parts = split_instances(dataset, settings.split_rule)
    bank = build_bank(dataset, parts, seed=settings.seed, scratch=Scratch(max_memory), report=stage)
    stage("closed-form start")
    validation = _validation_rows(dataset, parts, settings.seed)
    start = choose_start(bank, validation, dim=settings.dim)
    if math.isnan(start.held_out.mrr):
        what = "too few held-out instances"
        raise DataError(
            what,
            found=f"{len(validation)} for validation, no two of them sharing a pair of modalities",
            expected="enough to choose by (tens or more)",
            next_step="Give more instances or raise --validation.",
        )
    projections = _whitened(bank, start)
    rows = np.flatnonzero((parts == TRAIN) & (dataset.present.sum(axis=1) >= 2))
    plan = schedule(settings, len(rows))
    ids_digest = hashlib.sha256("\0".join(dataset.ids.to_pylist()).encode()).hexdigest()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        adapters = Adapters(
            [torch.from_numpy(m) for m in start.maps],
            hidden=HIDDEN if settings.adapter == "mlp" else 0,
            dropout=settings.dropout,
        )
    stage("training")
    trained = train(
        adapters,
        objective,
        tuple(torch.from_numpy(s) for s in bank.scores),
        torch.from_numpy(dataset.present),
        rows=torch.from_numpy(rows),
        validation=torch.from_numpy(validation),
        plan=plan,
        settings=settings,
        device=chosen,
        bf16=bf16,
        checkpoint=Checkpoint(checkpoint, _fingerprint(dataset, settings, start, ids_digest)),
        report=report,
        should_stop=should_stop,
    )
    hashes = hash_ids(dataset.ids, 0)
    return Fitted(
        names=dataset.names,
        projections=projections,
        adapters=trained.adapters,
        settings=settings,
        plan=plan,
        start=start,
        history=trained.history,
        best=trained.best,
        learned={name: float(p.detach()) for name, p in objective.named_parameters()},
        counts={
            name: int((parts == part).sum())
            for name, part in (("train", TRAIN), ("validation", VALIDATION), ("test", TEST))
        },
        seen={
            "train": np.sort(hashes[parts == TRAIN]),
            "validation": np.sort(hashes[parts == VALIDATION]),
        },
        inputs={
            f.name: {"rows": int(dataset.present[:, m].sum()), "dim": f.dim, "digest": f.digest}
            for m, f in enumerate(dataset.modalities)
        },
        ids_digest=ids_digest,
        device=str(chosen),
    )
