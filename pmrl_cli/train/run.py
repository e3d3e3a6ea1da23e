"""The runs of one fit: training from a start, and what runs share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pmrl_cli.batch import Encoded, Inputs
from pmrl_cli.closed_form.arithmetic import as_tensor
from pmrl_cli.closed_form.init import Initialization
from pmrl_cli.closed_form.projected import ProjectedData
from pmrl_cli.closed_form.shards import local_rows, rank_of_rows
from pmrl_cli.data.columns import codes_of
from pmrl_cli.data.dataset import Dataset
from pmrl_cli.data.links import links_of
from pmrl_cli.encoders.protocol import Continuation, Encoder, Init
from pmrl_cli.methods.protocol import Method
from pmrl_cli.process_group import ProcessGroup
from pmrl_cli.terms import make_term
from pmrl_cli.terms.weighted import WeightedTerms
from pmrl_cli.train.checkpoint import Checkpoint
from pmrl_cli.train.devices import choose_precision
from pmrl_cli.train.heldout import ValidationSet
from pmrl_cli.train.loader import TrainingData
from pmrl_cli.train.loop import TrainContext, Trainee, TrainResult, Validation, train
from pmrl_cli.train.objectives import make, needs_of
from pmrl_cli.train.progress import Progress, Schedule
from pmrl_cli.train.settings import FitSettings

__all__ = [
    "HIDDEN",
    "Run",
    "RunPlan",
    "embed",
]

HIDDEN = 256
"""Width of the residual MLP."""

SAMPLE_ROWS = 4096
"""Instances that a method may read before it starts."""

SEEN_ROWS = 65_536
"""Instances, evenly spaced, of which an encoder keeps moments: second moments need no more."""


@dataclass(frozen=True)
class RunPlan:
    """What one run trains, and for how long.

    Args:
        stage: name of the run, for its history and its state.
        objective: that it trains on.
        dropout: of its input components.
        schedule: how long and in what portions.
        is_over: asked after each evaluation whether it was the last.
        continuation: what the encoder goes on from, or None.
        network: whether adapters start as networks of random weights.
        learning_rate: times that of the settings.
    """

    stage: str
    objective: str
    dropout: float
    schedule: Schedule
    is_over: Callable[[Sequence[Progress]], bool] = lambda _: False
    continuation: Continuation | None = None
    network: bool = False
    learning_rate: float = 1.0


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
    processes: ProcessGroup

    @cached_property
    def labels(self) -> npt.NDArray[np.int64] | None:
        """(n,) class of each instance, -1 where unknown; None without ``--target``."""
        return None if self.settings.target is None else codes_of(self.dataset, self.settings.target)

    def labels_evaluated(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | None:
        """Return the classes that say which answers are right where methods do without pairs; None where pairs do."""
        unpaired = "unpaired" in needs_of(self.settings)
        return self.labels[rows] if unpaired and self.labels is not None else None

    @cached_property
    def match(self) -> npt.NDArray[np.int64] | None:
        """(n,) int64, equal for instances that show the same thing; None where all differ."""
        same = links_of(self.dataset, match=self.settings.match).same
        return None if int(same.max(initial=-1)) + 1 == len(same) else same

    def train(
        self,
        projected: ProjectedData,
        start: Initialization,
        plan: RunPlan,
        rows: npt.NDArray[np.int64],
        validation: ValidationSet | None,
    ) -> TrainResult:
        """Train an encoder from a closed form.

        Args:
            projected: of this process, its components whitened.
            start: of every process.
            plan: what is trained, and for how long.
            rows: (n_train,) row numbers of the instances that train, of all processes.
            validation: those that choose, which every process holds; None trains without any.
        """
        folder = self.folder / plan.stage.replace(" ", "-") if self.folder else None
        context = TrainContext(
            plan.stage,
            self.dataset.names,
            plan.schedule,
            replace(self.settings, learning_rate=plan.learning_rate * self.settings.learning_rate),
            self.device,
            choose_precision(self.settings.precision, self.device),
            Checkpoint(folder, self._fingerprint(projected, start)),
            lambda chosen: self.dataset.ids.take(rows[chosen]).to_pylist(),
            self.report,
            self.should_stop,
            plan.is_over,
            self.processes,
        )
        held_out = None
        if validation is not None:
            held_out = Validation(torch.from_numpy(projected.positions(validation.rows)), validation)
        method = make(self.settings, plan.objective)
        labels = self.labels if "labels" in method.needs else None
        trainee = self._trainee(method, projected, start, plan, rows, labels)
        return train(trainee, self._data(projected, rows, labels), held_out, context)

    def _fingerprint(self, projected: ProjectedData, start: Initialization) -> dict[str, str]:
        arrays = [*start.whiten, *start.maps]
        arrays += [array for projection in projected.projections for array in projection.arrays().values()]
        digest = hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()
        return {**self.fingerprint, "closed-form start": digest}

    def _data(
        self, projected: ProjectedData, rows: npt.NDArray[np.int64], labels: npt.NDArray[np.int64] | None
    ) -> TrainingData:
        return TrainingData(
            Inputs(
                [as_tensor(c) for c in projected.components],
                torch.from_numpy(projected.present),
                None if labels is None else torch.from_numpy(labels[projected.rows]),
                None if self.match is None else torch.from_numpy(self.match[projected.rows]),
            ),
            torch.from_numpy(projected.positions(rows)),
            torch.from_numpy(rank_of_rows(self.processes, self.dataset, rows)),
        )

    def _trainee(
        self,
        method: Method,
        projected: ProjectedData,
        start: Initialization,
        plan: RunPlan,
        rows: npt.NDArray[np.int64],
        labels: npt.NDArray[np.int64] | None,
    ) -> Trainee:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed)
            init = Init(
                tuple(torch.from_numpy(m) for m in start.maps),
                self.dataset.names,
                hidden=0 if self.settings.adapter == "linear" else HIDDEN,
                dropout=plan.dropout,
                whiten=tuple(torch.from_numpy(factors) for factors in start.whiten),
                spread=tuple(
                    torch.from_numpy((np.sqrt(variances) * factors).astype(np.float32))
                    for variances, factors in zip(projected.variances, start.whiten, strict=True)
                ),
                classes=0 if labels is None else int(labels.max(initial=-1)) + 1,
                sample=self._sample(projected, rows, labels) if method.reads_sample or labels is not None else None,
                continuation=plan.continuation,
                network=plan.network,
            )
            added = {name: (weight, make_term(name)) for name, weight in self.settings.terms.items()}
            terms = WeightedTerms(method.terms(), added)
            encoder = method.encoder(init)
            for term in terms.terms:
                encoder = term.extend(encoder, init)
        return Trainee(method, encoder, terms)

    def _sample(
        self, projected: ProjectedData, rows: npt.NDArray[np.int64], labels: npt.NDArray[np.int64] | None
    ) -> Inputs:
        """Return up to ``SAMPLE_ROWS`` training instances, evenly spaced: every process gets those of all."""
        chosen = rows[:: -(-len(rows) // SAMPLE_ROWS)]
        local = self.local(chosen)
        places, at = np.searchsorted(chosen, local), projected.positions(local)

        def whole(values: Tensor) -> Tensor:
            found = torch.zeros((len(chosen), *values.shape[1:]), dtype=values.dtype)
            found[places] = values
            return self.processes.all_reduce(found)

        return Inputs(
            [whole(components) for components in projected.take(at)],
            whole(torch.from_numpy(projected.present[at].astype(np.int64))).bool(),
            None if labels is None else whole(torch.from_numpy(labels[local])),
        )

    def local(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the rows that this process holds."""
        return local_rows(self.processes, self.dataset, rows)

    def see(self, encoder: Encoder, projected: ProjectedData, rows: npt.NDArray[np.int64]) -> None:
        """Let a trained encoder take down what a later fit needs, from up to ``SEEN_ROWS`` of the rows it trained on.

        Args:
            encoder: on the CPU, in evaluation mode.
            projected: of this process.
            rows: (n_train,) row numbers of the instances that trained, of all processes.
        """
        local = self.local(rows[:: -(-len(rows) // SEEN_ROWS)])

        def batches() -> Iterator[Inputs]:
            for first in range(0, len(local), 8192):
                at = projected.positions(local[first : first + 8192])
                yield Inputs(projected.take(at), torch.from_numpy(projected.present[at]))

        encoder.see(batches(), self.processes.all_reduce)


def embed(encoder: Encoder, data: ProjectedData, rows: npt.NDArray[np.int64]) -> Tensor:
    """Return (n, K, d) embeddings of instances whose whitened components the data holds."""
    positions = data.positions(rows)
    with torch.no_grad():
        encoded: Encoded = encoder(Inputs(data.take(positions), torch.from_numpy(data.present[positions])))
    return encoded.vectors
