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

from pmrl_cli import __version__
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
from pmrl_cli.training.loop import Progress, Schedule, Trained, schedule, train
from pmrl_cli.training.settings import FitSettings
from pmrl_cli.training.start import Setting, Start, choose_setting, given_setting, solve_start

__all__ = ["Fitted", "fit"]

HIDDEN = 256
"""Width of the residual MLP."""


FEW_INSTANCES = 20_000
"""Up to this many training instances a fit tries both dropouts and is refitted with the validation instances: there
a quarter more instances is worth several per cent of retrieval (docs/quality.md), and costs seconds."""

DROPOUTS = (0.0, 0.5)


@dataclass(frozen=True)
class Fitted:
    """A trained alignment and the record of how it came about.

    Args:
        names: modalities, in order.
        projections: per modality, features to whitened scores.
        adapters: whitened scores to the shared space, CPU, evaluation mode.
        settings: as asked.
        plan: schedule of the candidates.
        setting: closed-form setting that validation chose.
        history: evaluations of every run, in order.
        start: evaluation of the closed form.
        best: evaluation of the weights that were kept, or that a refit repeated with all instances.
        dropout: that validation chose.
        refitted: whether validation instances trained in the end.
        learned: the objective's own trained parameters.
        counts: instances per part (train, validation, test) as dealt, less those excluded.
        excluded: ``vectors`` and ``instances`` (of which a vector) left out of training and validation on request.
        ranked: validation instances that were ranked.
        seen: sorted 64-bit hashes (seed 0) of the ids that trained, and of those that only chose.
        inputs: what was fitted, by modality: rows, dim, digest.
        ids_digest: SHA-256 of the ids in order.
    """

    names: tuple[str, ...]
    projections: tuple[Projection, ...]
    adapters: Adapters
    settings: FitSettings
    plan: Schedule
    setting: Setting
    history: tuple[Progress, ...]
    start: Progress
    best: Progress
    dropout: float
    refitted: bool
    learned: dict[str, float]
    counts: dict[str, int]
    excluded: dict[str, int]
    ranked: int
    seen: dict[str, npt.NDArray[np.uint64]]
    inputs: dict[str, dict[str, object]]
    ids_digest: str


@dataclass(frozen=True)
class _Run:
    """What the runs of one fit share."""

    dataset: Dataset
    settings: FitSettings
    device: torch.device
    folder: Path | None
    fingerprint: dict[str, str]
    report: Callable[[Progress, Schedule], None]
    should_stop: Callable[[], bool]

    def train(
        self,
        bank: Bank,
        start: Start,
        *,
        stage: str,
        dropout: float,
        rows: npt.NDArray[np.int64],
        validation: npt.NDArray[np.int64] | None,
        plan: Schedule,
    ) -> Trained:
        """Train adapters from a start; the bank's scores are whitened already."""
        arrays = [*start.whiten, *start.maps]
        arrays += [getattr(p, name) for p in bank.projections for name in ("mean", "scale", "center", "basis")]
        fingerprint = {
            **self.fingerprint,
            "closed-form start": hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest(),
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed)
            adapters = Adapters(
                [torch.from_numpy(m) for m in start.maps],
                hidden=HIDDEN if self.settings.adapter == "mlp" else 0,
                dropout=dropout,
            )
            objective = make_objective(self.settings.objective, self.settings.objective_settings)
        try:
            return train(
                adapters,
                objective,
                tuple(torch.from_numpy(s) for s in bank.scores),
                torch.from_numpy(self.dataset.present),
                stage=stage,
                names=self.dataset.names,
                rows=torch.from_numpy(rows),
                ids_of=lambda chosen: self.dataset.ids.take(np.array(chosen, dtype=np.int64)).to_pylist(),
                validation=None if validation is None else torch.from_numpy(validation),
                plan=plan,
                settings=self.settings,
                device=self.device,
                bf16=choose_precision(self.settings.precision, self.device),
                checkpoint=Checkpoint(self.folder / stage.replace(" ", "-") if self.folder else None, fingerprint),
                report=self.report,
                should_stop=self.should_stop,
            )
        except torch.OutOfMemoryError as error:
            what = "not enough memory on the device"
            raise ResourceError(
                what,
                found=str(error).splitlines()[0],
                expected=f"room for batches of {plan.batch_size} instances",
                next_step="Lower --batch-size, or use --device cpu.",
            ) from None


def _validation_rows(dataset: Dataset, parts: npt.NDArray[np.int8], seed: int) -> npt.NDArray[np.int64]:
    rows = np.flatnonzero((parts == VALIDATION) & (dataset.present.sum(axis=1) >= 2))
    if len(rows) > HELD_OUT_LIMIT:
        order = np.argsort(hash_ids(dataset.ids.take(rows), seed), kind="stable")
        rows = np.sort(rows[order[:HELD_OUT_LIMIT]])
    return rows


def _whiten(bank: Bank, start: Start) -> tuple[Projection, ...]:
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
    excluded: npt.NDArray[np.bool_] | None = None,
    checkpoint: Path | None = None,
    stage: Callable[[str], None] = lambda _: None,
    report: Callable[[Progress, Schedule], None] = lambda *_: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Fitted:
    """Fit adapters to a data set.

    Validation chooses the closed-form setting, the dropout and the number of steps; where instances are few, all of
    that is then repeated, unjudged, with the validation instances trained on too.

    Args:
        dataset: two modalities or more.
        settings: with the data they determine the result.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        max_memory: bytes for features and scores together; scores beyond it live on disk. None: half of what is free.
        excluded: (n, k), vectors that neither train nor choose, as if they were missing; None for none.
        checkpoint: folder of the resumable state; None keeps none.
        stage: told what is being done.
        report: called at each evaluation.
        should_stop: asked after each step.

    Raises: DataError for data that cannot be fitted; UsageError for settings; ResourceError for a device that is
        not there; StateError for a checkpoint of another fit; DivergedError; Interrupted.
    """
    chosen_device = choose_device(device)
    if len(dataset.modalities) < 2:
        what = "alignment needs at least two modalities"
        raise DataError(
            what, found=f"only {', '.join(dataset.names)}", expected="two or more", next_step="Give another modality."
        )
    with torch.random.fork_rng(devices=[]):
        # An empty batch: an objective that wants another number of modalities says so before any work is done.
        empty = torch.zeros(0, len(dataset.modalities), 1)
        make_objective(settings.objective, settings.objective_settings)(empty, empty[..., 0].bool())
    parts = split_instances(dataset, settings.split_rule)
    left_out = np.zeros_like(dataset.present) if excluded is None else excluded & (parts != TEST)[:, None]
    lost = left_out.any(axis=1) & ((dataset.present & ~left_out).sum(axis=1) < 2)
    dataset = replace(dataset, present=dataset.present & ~left_out)
    ids_digest = hashlib.sha256("\0".join(dataset.ids.to_pylist()).encode()).hexdigest()
    run = _Run(
        dataset,
        settings,
        chosen_device,
        checkpoint,
        {
            **{f"data of {f.name}": f.digest for f in dataset.modalities},
            "ids": ids_digest,
            "split": hashlib.sha256(parts.tobytes()).hexdigest(),
            "excluded": hashlib.sha256(left_out.tobytes()).hexdigest(),
            **{f"setting {name}": json.dumps(value, sort_keys=True) for name, value in settings.as_dict().items()},
            # What rounds otherwise does not continue bit for bit.
            "device": chosen_device.type,
            "threads": str(torch.get_num_threads()),
            "versions": f"pmrl {__version__}, torch {torch.__version__}, numpy {np.__version__}",
        },
        report,
        should_stop,
    )
    trainable = dataset.present.sum(axis=1) >= 2
    few = int((parts == TRAIN).sum()) <= FEW_INSTANCES
    refit = few if settings.refit is None else settings.refit

    resident = sum(f.array.nbytes for f in dataset.modalities if not isinstance(f.array, np.memmap))

    def bank_of(train: npt.NDArray[np.bool_], *, given: bool) -> Bank:
        scratch = Scratch(None if max_memory is None else max(0, max_memory - resident))
        return build_bank(dataset, train, seed=settings.seed, scratch=scratch, given=given, report=stage)

    train_only = parts == TRAIN
    bank = bank_of(train_only, given=False)
    stage("closed-form start")
    validation = _validation_rows(dataset, parts, settings.seed)
    setting = choose_setting(bank, validation, dim=settings.dim)
    given = given_setting(dataset, train_only, validation, dim=settings.dim)
    if given is not None and given.held_out.mrr > setting.held_out.mrr:
        setting = replace(given, tried=setting.tried + 1)
        del bank
        bank = bank_of(train_only, given=True)
    if math.isnan(setting.held_out.mrr):
        what = "too few held-out instances"
        raise DataError(
            what,
            found=f"{len(validation)} for validation, no two of them sharing a pair of modalities",
            expected="enough to choose by (tens or more)",
            next_step="Give more instances or raise --validation.",
        )
    start = solve_start(bank, setting)
    projections = _whiten(bank, start)
    rows = np.flatnonzero((parts == TRAIN) & trainable)
    if len(rows) < 2:
        what = "too few training instances"
        raise DataError(
            what,
            found=f"{len(rows)} with two modalities or more",
            expected="2 or more (in practice hundreds)",
            next_step="Check that the files share ids, or lower the shares held out (--validation, --test).",
        )
    plan = schedule(settings, len(rows))
    if settings.dropout is not None:
        dropouts: tuple[float, ...] = (settings.dropout,)
    else:
        dropouts = DROPOUTS if few and plan.steps else DROPOUTS[:1]
    stage("training")
    tried = [
        run.train(
            bank, start, stage=f"dropout {dropout:g}", dropout=dropout, rows=rows, validation=validation, plan=plan
        )
        for dropout in dropouts
    ]
    index = max(range(len(tried)), key=lambda i: tried[i].best.mrr)
    trained = tried[index]
    history = [line for candidate in tried for line in candidate.history]
    seen_in_training = train_only

    if refit:
        seen_in_training = (parts == TRAIN) | (parts == VALIDATION)
        del bank
        bank = bank_of(seen_in_training, given=setting.given)
        start = solve_start(bank, setting)
        projections = _whiten(bank, start)
        rows = np.flatnonzero(seen_in_training & trainable)
        # As many epochs as were best, of the now longer epoch.
        steps = round(trained.best.epoch * (len(rows) // plan.batch_size))
        stage("training")
        refitted = run.train(
            bank,
            start,
            stage="refit",
            dropout=dropouts[index],
            rows=rows,
            validation=None,
            plan=replace(plan, steps=steps),
        )
        history += refitted.history
    final = refitted if refit else trained
    hashes = hash_ids(dataset.ids, 0)
    return Fitted(
        names=dataset.names,
        projections=projections,
        adapters=final.adapters,
        settings=settings,
        plan=plan,
        setting=setting,
        history=tuple(history),
        start=tried[0].history[0],
        best=trained.best,
        dropout=dropouts[index],
        refitted=refit,
        learned=final.learned,
        counts={
            name: int(((parts == part) & ~lost).sum())
            for name, part in (("train", TRAIN), ("validation", VALIDATION), ("test", TEST))
        },
        seen={
            "train": np.sort(hashes[seen_in_training]),
            "validation": np.sort(hashes[(parts == VALIDATION) & ~seen_in_training]),
        },
        excluded={"vectors": int(left_out.sum()), "instances": int(left_out.any(axis=1).sum())},
        ranked=len(validation),
        inputs={
            f.name: {"rows": int(dataset.present[:, m].sum()), "dim": f.dim, "digest": f.digest}
            for m, f in enumerate(dataset.modalities)
        },
        ids_digest=ids_digest,
    )
