"""What every part of a fit shares."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from pmrl_cli import __version__
from pmrl_cli.array_types import Mask
from pmrl_cli.closed_form.arithmetic import Arithmetic, arithmetic_on
from pmrl_cli.closed_form.gcca import SOLVERS
from pmrl_cli.data.dataset import Dataset
from pmrl_cli.data.ids import digest_ids
from pmrl_cli.data.repeats import with_hashes
from pmrl_cli.data.split import TEST, split_instances
from pmrl_cli.errors import DataError
from pmrl_cli.files.durable.scratch import Scratch
from pmrl_cli.fit.base import Base
from pmrl_cli.process_group import SINGLE_PROCESS, ProcessGroup
from pmrl_cli.train.devices import choose_device
from pmrl_cli.train.objectives import check_objective, needs_of
from pmrl_cli.train.progress import Progress, Schedule
from pmrl_cli.train.run import Run
from pmrl_cli.train.settings import FitSettings

__all__ = ["FitContext", "Hooks", "Machine", "open_context"]


@dataclass(frozen=True)
class Machine:
    """What a fit runs on.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        max_memory: bytes for features and components together; components beyond it live on disk. None: half of what
            is free.
        processes: the processes that fit together: each holds its shard of the training instances, all end with the
            same result.
    """

    device: str = "auto"
    max_memory: int | None = None
    processes: ProcessGroup = SINGLE_PROCESS


@dataclass(frozen=True)
class Hooks:
    """What a fit calls while it runs.

    Args:
        stage: with the name of each stage as it begins.
        report: at each evaluation.
        should_stop: at each step; True saves the checkpoint and raises ``Interrupted``.
        candidate: with the number of a candidate, how many there are and its name, before it runs.
        began: when what ``--budget`` bounds began, on the monotonic clock; None: when the fit did.
    """

    stage: Callable[[str], None] = lambda _: None
    report: Callable[[Progress, Schedule], None] = lambda *_: None
    should_stop: Callable[[], bool] = lambda: False
    candidate: Callable[[int, int, str], None] = lambda *_: None
    began: float | None = None


@dataclass(frozen=True)
class FitContext:
    """What every part of a fit shares.

    Args:
        dataset: without the vectors that were excluded.
        settings: as asked.
        parts: (n,) TRAIN, VALIDATION or TEST of each instance.
        excluded: (n, k) vectors left out of training and validation on request.
        ids_digest: SHA-256 of the ids in order.
        scratch: where components live.
        hooks: called while the fit runs.
        run: trains.
        processes: the processes that fit together.
        began: on the monotonic clock.
        base: the model to go on from; None: the fit starts without one.
    """

    dataset: Dataset
    settings: FitSettings
    parts: npt.NDArray[np.int8]
    excluded: Mask
    ids_digest: str
    scratch: Scratch
    hooks: Hooks
    run: Run
    processes: ProcessGroup
    began: float
    base: Base | None = None

    @property
    def trainable(self) -> Mask:
        """(n,) whether an instance has two modalities or more, or one where the method takes unpaired instances."""
        trainable: Mask = self.dataset.present.sum(axis=1) >= (1 if "unpaired" in needs_of(self.settings) else 2)
        return trainable

    @property
    def arithmetic(self) -> Arithmetic:
        """What closed forms compute with."""
        return arithmetic_on(self.run.device)

    @property
    def solver(self) -> str:
        """The closed form asked for, or that training starts from."""
        return self.settings.objective if self.settings.objective in SOLVERS else SOLVERS[0]


def open_context(
    dataset: Dataset,
    settings: FitSettings,
    *,
    machine: Machine,
    excluded: Mask | None,
    checkpoint: Path | None,
    hooks: Hooks,
    base: Base | None,
) -> FitContext:
    """Check what was asked, split the instances and return the context; the arguments are those of ``fit``."""
    began = time.monotonic() if hooks.began is None else hooks.began
    device = choose_device(machine.device)
    if len(dataset.modalities) < 2:
        raise DataError(
            what="alignment needs at least two modalities",
            found=f"only {', '.join(dataset.names)}",
            expected="two or more",
            next_step="Give another modality.",
        )
    check_objective(settings, len(dataset.modalities))
    if base is not None:
        base.check(settings, dataset)
        dataset, excluded = base.widened(dataset, excluded)
    dataset = with_hashes(dataset)
    parts = split_instances(dataset, settings.split_rule)
    left_out = np.zeros_like(dataset.present) if excluded is None else excluded & (parts != TEST)[:, None]
    dataset = dataset.without(left_out)
    ids_digest = digest_ids(dataset.ids)
    fingerprint = {
        **{f"data of {f.name}": f.digest for f in dataset.modalities},
        "ids": ids_digest,
        "split": hashlib.sha256(parts.tobytes()).hexdigest(),
        "excluded": hashlib.sha256(left_out.tobytes()).hexdigest(),
        **{f"setting {name}": json.dumps(value, sort_keys=True) for name, value in settings.as_dict().items()},
        "continued from": "" if base is None else base.digest,
        **_rounding(device, machine.processes),
    }
    run = Run(dataset, settings, device, checkpoint, fingerprint, hooks.report, hooks.should_stop, machine.processes)
    if "labels" in needs_of(settings) and not (run.labels is not None and (run.labels >= 0).any()):
        raise DataError(
            what="side column has no labels",
            found=f"only nulls in {settings.target}",
            expected="a class in some rows",
            next_step="Name another.",
        )
    resident = sum(f.array.nbytes for f in dataset.modalities if not isinstance(f.array, np.memmap))
    scratch = Scratch(None if machine.max_memory is None else max(0, machine.max_memory - resident))
    return FitContext(
        dataset, settings, parts, left_out, ids_digest, scratch, hooks, run, machine.processes, began, base
    )


def _rounding(device: torch.device, processes: ProcessGroup) -> dict[str, str]:
    """Return what a fit must share with another to round as it does: else it does not continue bit for bit."""
    return {
        "device": device.type,
        "threads": str(torch.get_num_threads()),
        "products": torch.get_float32_matmul_precision(),
        "processes": str(processes.size),
        "versions": f"pmrl {__version__}, torch {torch.__version__}, numpy {np.__version__}",
    }
