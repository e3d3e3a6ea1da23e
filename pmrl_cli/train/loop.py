"""The training loop: steps on batches, held-out retrieval from step 0, the best weights kept."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import Tensor

from pmrl_cli.batch import Inputs
from pmrl_cli.encoders.protocol import Encoder
from pmrl_cli.errors import DivergedError, ResourceError, is_out_of_memory, named
from pmrl_cli.methods.protocol import Method
from pmrl_cli.process_group import SINGLE_PROCESS, ProcessGroup
from pmrl_cli.terms.weighted import WeightedTerms
from pmrl_cli.train.checkpoint import Checkpoint
from pmrl_cli.train.devices import allow_tf32
from pmrl_cli.train.evaluator import Evaluator
from pmrl_cli.train.heldout import HeldOut, ValidationSet
from pmrl_cli.train.loader import Batch, BatchLoader, BatchSampler, TrainingData, map_inputs
from pmrl_cli.train.progress import Progress, Schedule, best_line
from pmrl_cli.train.settings import FitSettings
from pmrl_cli.train.step import Step, StepOptions, Totals

__all__ = ["Interrupted", "TrainContext", "TrainResult", "Trainee", "Validation", "train"]

SYNC_EVERY = {"cpu": 1, "cuda": 32}
"""Steps between reads of the loss; reading synchronises the GPU."""

NAMED = 5
"""Instances of a batch that an error names."""

_FINISHED_AT_ONCE = 4096
"""Training instances in a batch of ``Method.finish``."""

CHECKPOINT_SECONDS = 30.0
"""A run that dies loses at most about this much work."""


class Interrupted(Exception):  # noqa: N818 - not an error: the user asked
    """Training stopped because it was asked to; its checkpoint is saved."""


@dataclass(frozen=True)
class Trainee:
    """What is trained.

    Args:
        method: whose facts and update are followed.
        encoder: of the method, at its start, on the CPU.
        terms: of the method, and those added to them.
    """

    method: Method
    encoder: Encoder
    terms: WeightedTerms

    @property
    def may_stay(self) -> bool:
        """Whether the start, before any step, may be what is kept."""
        whole = self.method.closed_form_stands_in or self.method.start_competes
        return whole and self.terms.closed_form_stands_in


@dataclass(frozen=True)
class Validation:
    """The instances that are ranked at each evaluation.

    Args:
        positions: where they are in the inputs of the training data; every process holds them.
        instances: which they are, and what is right for which.
    """

    positions: Tensor
    instances: ValidationSet


@dataclass(frozen=True)
class TrainContext:
    """Where and how long to train, and what is called meanwhile.

    Args:
        stage: name of the run, for its history.
        names: of the modalities, for its history.
        schedule: how long and in what portions.
        settings: of the fit.
        device: where to train.
        bf16: whether the encoder's products run in bfloat16.
        checkpoint: state is loaded from it if it holds any, and saved to it.
        ids_of: ids of training instances by number, to name some in an error.
        report: called at each evaluation.
        should_stop: asked at each step; True, in any process, saves a checkpoint and raises.
        is_over: asked in rank 0 after each evaluation, with those so far, whether it was the last.
        processes: the processes that train together.
    """

    stage: str
    names: tuple[str, ...]
    schedule: Schedule
    settings: FitSettings
    device: torch.device
    bf16: bool
    checkpoint: Checkpoint
    ids_of: Callable[[list[int]], list[str]]
    report: Callable[[Progress, Schedule], None] = lambda *_: None
    should_stop: Callable[[], bool] = lambda: False
    is_over: Callable[[Sequence[Progress]], bool] = lambda _: False
    processes: ProcessGroup = SINGLE_PROCESS


@dataclass(frozen=True)
class TrainResult:
    """What training leaves.

    Args:
        encoder: with the best weights restored (a refit: the last), on the CPU, in evaluation mode.
        history: one line an evaluation, step 0 first.
        best: the line whose weights were kept.
        learned: the terms' own trained scalars (log temperatures), by name, when training ended.
    """

    encoder: Encoder
    history: tuple[Progress, ...]
    best: Progress
    learned: dict[str, float]


def train(trainee: Trainee, data: TrainingData, validation: Validation | None, context: TrainContext) -> TrainResult:
    """Train an encoder and return it with its best weights.

    Args:
        trainee: what is trained.
        data: the instances that train.
        validation: those that are ranked at each evaluation; None runs all steps without.
        context: where, for how long, and what is called meanwhile.

    Raises: DivergedError on a loss, gradient, embedding or weight that is not finite, before it reaches the weights
        that are kept or a checkpoint; ResourceError if a step has no room; Interrupted.
    """
    device, encoder = context.device, trainee.encoder
    encoder.to(device)
    trainee.terms.to(device)
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[device] if device.type == "cuda" else []))
        stack.enter_context(allow_tf32(device, context.settings.precision))
        loop = _Loop(trainee, data, validation, context)
        loop.start()
        # Closed explicitly: a loop that is left leaves the thread that reads ahead for the collector.
        ahead = stack.enter_context(
            closing(BatchLoader(data, loop.sampler, device, context.processes).after(loop.step))
        )
        while not loop.done():
            loop.advance(next(ahead))
        loop.flush_losses()
        loop.save()  # so that a fit resumed in a later run finds this one done
    encoder.load_state_dict(loop.best_state)
    encoder.to("cpu").eval()
    trainee.method.finish(encoder, _local_batches(data, context.processes))
    best = loop.history[-1] if validation is None else best_line(loop.history, start=loop.may_stay)
    return TrainResult(encoder, tuple(loop.history), best, trainee.terms.learned())


def _taken(tensor: Tensor, rows: Tensor) -> Tensor:
    """Return rows on the CPU, where encoders are that were trained."""
    return tensor[rows].cpu()


def _local_batches(data: TrainingData, processes: ProcessGroup) -> Iterator[Inputs]:
    """Yield the training instances of this process in order."""
    rows = data.positions[data.ranks == processes.rank]
    for first in range(0, len(rows), _FINISHED_AT_ONCE):
        some = rows[first : first + _FINISHED_AT_ONCE]
        yield map_inputs(data.inputs, partial(_taken, rows=some))


class _Loop:
    """The state of training between steps: what a checkpoint holds, and the losses not read yet."""

    def __init__(
        self, trainee: Trainee, data: TrainingData, validation: Validation | None, context: TrainContext
    ) -> None:
        self._encoder, self._terms = trainee.encoder, trainee.terms
        self.may_stay = trainee.may_stay and not context.settings.trained
        self._context, self._settings = context, context.settings
        settings = context.settings
        options = StepOptions(settings.learning_rate, settings.mixup, settings.seed, context.bf16)
        update = trainee.method.update(trainee.encoder)
        self._take_step = Step(trainee.encoder, trainee.terms, options, update, context.processes)
        self.sampler = BatchSampler(len(data), context.schedule.batch_size, settings.seed)
        self._evaluator = None
        if validation is not None:
            at = validation.positions
            held = map_inputs(data.inputs, lambda tensor: tensor[at].to(context.device))
            evaluated = (trainee.method, trainee.terms, context.processes)
            self._evaluator = Evaluator(held, validation.instances, context.names, settings.seed, *evaluated)
        self.step = self._since = 0
        self._sums: dict[str, float] = {}
        self.history: list[Progress] = []
        self.best_state: dict[str, Tensor] = {}
        self._unread: list[tuple[int, Tensor, Totals]] = []
        self._places = data.positions[:0]
        self._last_save = time.monotonic()

    def start(self) -> None:
        """Continue from the checkpoint, or evaluate the start.

        Raises: Interrupted if asked to stop already.
        """
        optimiser, processes = self._take_step.optimiser, self._context.processes
        saved = self._context.checkpoint.load(self._encoder, self._terms, optimiser, processes)
        if saved is None:
            self._evaluate()
        else:
            self.step, self._since, self._sums = saved.step, saved.since, saved.sums
            self.history += [Progress(**line) for line in saved.history]
            self.best_state.update(saved.best)
        self._last_save = time.monotonic()
        self._encoder.train()
        if bool(processes.all_reduce(torch.tensor(float(self._context.should_stop())))):
            self.save()
            raise Interrupted

    def done(self) -> bool:
        """Return whether all steps are taken, none of the last evaluations was better, or time is over."""
        context, waited = self._context, 0
        if self.step >= context.schedule.steps:
            return True
        if self._evaluator is not None:
            waited = len(self.history) - 1 - self.history.index(best_line(self.history, start=self.may_stay))
        over = self._since == 0 and context.processes.broadcast_json(context.is_over(self.history))
        return waited >= self._settings.patience or over

    def advance(self, batch: Batch) -> None:
        """Take a step, and what is due after it: an evaluation, a checkpoint.

        Raises: Interrupted if a process is asked to stop.
        """
        context = self._context
        self._places = batch.places
        try:
            totals = self._take_step(self.step + 1, batch, stop=context.should_stop())
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise _no_room(error, self._take_step, self.step + 1, batch) from None
        self.step += 1
        self._since += 1
        self._unread.append((self.step, batch.places, totals))
        due = self.step % context.schedule.every == 0 or self.step == context.schedule.steps
        stop = self.flush_losses() if due or len(self._unread) >= SYNC_EVERY[context.device.type] else False
        if due:
            self._evaluate()
        # A loss that is not read yet is in no checkpoint.
        if stop or (not self._unread and time.monotonic() - self._last_save > CHECKPOINT_SECONDS):
            self.save()
        if stop:
            raise Interrupted

    def flush_losses(self) -> bool:
        """Read the losses not read yet, add them up, and return whether a process is asked to stop."""
        stop = False
        for number, places, totals in self._unread:
            parts, norm, asked = totals.read()
            if not math.isfinite(parts["loss"] + norm):
                what = "loss" if not math.isfinite(parts["loss"]) else "gradient"
                found = norm if math.isfinite(parts["loss"]) else parts["loss"]
                raise self._diverged(f"{what} {found} at step {number}{self._learned_on(places)}")
            for name, part in parts.items():
                self._sums[name] = self._sums.get(name, 0.0) + part
            stop = stop or asked
        self._unread.clear()
        return stop

    def _evaluate(self) -> None:
        context, step = self._context, self.step
        share, quality, statistics = math.nan, HeldOut(math.nan, math.nan), dict[str, float]()
        if self._evaluator is not None:
            share, quality, statistics = self._evaluator(self._encoder)
            if not math.isfinite(share):
                where = self._learned_on(self._places)
                raise self._diverged(f"embeddings that are not finite after step {step}{where}")
        # Sorted, so that a history read back from a checkpoint is the same to the byte.
        means = {name: total / self._since for name, total in sorted(self._sums.items())} if self._since else {}
        loss = means.pop("loss", math.nan)
        epoch = step / self.sampler.per_epoch
        line = Progress(context.stage, step, epoch, loss, share, quality.mrr, quality.r1, means, statistics)
        self.history.append(line)
        if self._evaluator is None or line is best_line(self.history, start=self.may_stay):
            state = self._encoder.state_dict().items()
            self.best_state = {name: tensor.detach().cpu().clone() for name, tensor in state}
        self._sums, self._since = {}, 0
        context.report(line, context.schedule)

    def save(self) -> None:
        """Save a checkpoint, on rank 0."""
        if not all(bool(torch.isfinite(parameter).all()) for parameter in self._take_step.parameters):
            raise self._diverged(f"weights that are not finite after step {self.step}")
        if self._context.processes.rank == 0:
            self._context.checkpoint.save(
                self._encoder,
                self._terms,
                self._take_step.optimiser,
                step=self.step,
                since=self._since,
                sums=self._sums,
                history=[asdict(line) for line in self.history],
                best=self.best_state,
            )
        self._last_save = time.monotonic()

    def _learned_on(self, places: Tensor) -> str:
        shown = named(self._context.ids_of(places[:NAMED].tolist()))
        return f", whose {len(places)} instances are {shown}{', …' if len(places) > NAMED else ''}" if shown else ""

    def _diverged(self, found: str) -> DivergedError:
        what = "training diverged"
        step = f"Lower --learning-rate (now {self._settings.learning_rate:g}) and add --restart."
        return DivergedError(what, found=found, expected="finite numbers", next_step=step)


def _no_room(error: BaseException, take_step: Step, number: int, batch: Batch) -> ResourceError:
    """Return the error of a step without room, with the largest halving of its batch that has: tried, not guessed."""
    what = "not enough memory for a training step"
    found, expected = str(error).splitlines()[0], f"room for batches of {len(batch.places)} instances"
    if len(batch.counts) > 1:  # the others are not there to try with
        step = "Lower --batch-size and add --restart, or start more processes on more machines."
        return ResourceError(what, found=found, expected=expected, next_step=step)

    def has_room(size: int) -> bool:
        try:
            take_step.differentiate(number, batch.part(size))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return False
        return True

    size = len(batch.places) // 2
    while size >= 2 and not has_room(size):
        size //= 2
    return ResourceError(
        what,
        found=found,
        expected=expected,
        next_step=f"Batches of {size} have room: add --batch-size {size} --restart."
        if size >= 2
        else "Not even batches of 2 have room: free some, or use --device cpu.",
    )
