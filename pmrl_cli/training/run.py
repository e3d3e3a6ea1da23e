"""The runs of one fit: training from a start, and what runs share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pmrl_cli.adapters import Adapters
from pmrl_cli.data.dataset import Dataset
from pmrl_cli.gcca import SOLVERS
from pmrl_cli.objectives import make_objective
from pmrl_cli.training.bank import Bank, owners
from pmrl_cli.training.checkpoint import Checkpoint
from pmrl_cli.training.devices import choose_precision
from pmrl_cli.training.loop import Progress, Schedule, Trained, train
from pmrl_cli.training.settings import AUTO_OBJECTIVES, FitSettings
from pmrl_cli.training.start import Start
from pmrl_cli.world import World

__all__ = ["HIDDEN", "Run", "check_objective", "embed", "objectives_of", "whiten"]

HIDDEN = 256
"""Width of the residual MLP."""


def objectives_of(settings: FitSettings) -> tuple[str, ...]:
    """Return the names of the objectives that a fit tries."""
    return AUTO_OBJECTIVES if settings.objective == "auto" else (settings.objective,)


def _make(settings: FitSettings, objective: str) -> nn.Module:
    # A closed form trains nothing; what stands in for it is never asked.
    return make_objective(AUTO_OBJECTIVES[0] if objective in SOLVERS else objective, settings.objective_settings)


def check_objective(settings: FitSettings, modalities: int | None = None) -> None:
    """Raise UsageError for an unknown objective or setting of it, or one that refuses so many modalities."""
    with torch.random.fork_rng(devices=[]):
        for name in objectives_of(settings):
            objective = _make(settings, name)
            if modalities is not None:
                # An empty batch: what the objective has to say of it, it says before any work is done.
                empty = torch.zeros(0, modalities, 1)
                objective(empty, empty[..., 0].bool())


@dataclass(frozen=True)
class Run:
    """What the runs of one fit share."""

    dataset: Dataset
    settings: FitSettings
    device: torch.device
    folder: Path | None
    fingerprint: dict[str, str]
    report: Callable[[Progress, Schedule], None]
    should_stop: Callable[[], bool]
    world: World

    def train(
        self,
        bank: Bank,
        start: Start,
        *,
        stage: str,
        objective: str,
        dropout: float,
        rows: npt.NDArray[np.int64],
        validation: npt.NDArray[np.int64] | None,
        plan: Schedule,
        deadline: float | None = None,
    ) -> Trained:
        """Train adapters from a start; the bank's scores are whitened already.

        Args:
            bank: of this process.
            start: of every process.
            stage: name of the run, for its history and its state.
            objective: that it trains on.
            dropout: of its input scores.
            rows: (n_train,) row numbers of the instances that train, of all processes.
            validation: row numbers of those that choose, which every bank holds; None trains unjudged.
            plan: schedule.
            deadline: on the monotonic clock.
        """
        arrays = [*start.whiten, *start.maps]
        arrays += [array for projection in bank.projections for array in projection.arrays().values()]
        fingerprint = {
            **self.fingerprint,
            "closed-form start": hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest(),
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed)
            adapters = Adapters(
                [torch.from_numpy(m) for m in start.maps],
                hidden=0 if self.settings.adapter == "linear" else HIDDEN,
                dropout=dropout,
            )
            module = _make(self.settings, objective)
        return train(
            adapters,
            module,
            tuple(torch.from_numpy(s) for s in bank.scores),
            torch.from_numpy(bank.present),
            stage=stage,
            names=self.dataset.names,
            positions=torch.from_numpy(bank.positions(rows)),
            owners=torch.from_numpy(owners(self.world, self.dataset, rows)),
            ids_of=lambda chosen: self.dataset.ids.take(rows[chosen]).to_pylist(),
            validation=None if validation is None else torch.from_numpy(bank.positions(validation)),
            plan=plan,
            settings=self.settings,
            device=self.device,
            bf16=choose_precision(self.settings.precision, self.device),
            checkpoint=Checkpoint(self.folder / stage.replace(" ", "-") if self.folder else None, fingerprint),
            report=self.report,
            should_stop=self.should_stop,
            deadline=deadline,
            world=self.world,
        )


def whiten(bank: Bank, start: Start) -> Bank:
    """Return the bank with the scores that the adapters of a start take."""
    # In place: the bank is ours, and a second copy of it would double the largest thing in memory.
    for scores, factors in zip(bank.scores, start.whiten, strict=True):
        for first in range(0, len(scores), 65536):
            scores[first : first + 65536] *= factors
    times = (projection.times(factors) for projection, factors in zip(bank.projections, start.whiten, strict=True))
    return replace(bank, projections=tuple(times))


def embed(adapters: Adapters, bank: Bank, rows: npt.NDArray[np.int64]) -> Tensor:
    """Return (n, K, d) embeddings of instances whose whitened scores the bank holds."""
    positions = bank.positions(rows)
    with torch.no_grad():
        embeddings: Tensor = adapters([torch.from_numpy(scores[positions]) for scores in bank.scores])
    return embeddings
