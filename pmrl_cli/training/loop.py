"""The loop: steps on batches, held-out retrieval from step 0, the best weights kept."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import Tensor

from pmrl_cli.batch import Inputs
from pmrl_cli.encoders.protocol import Encoder
from pmrl_cli.errors import DivergedError, ResourceError, is_out_of_memory
from pmrl_cli.methods.protocol import Method
from pmrl_cli.terms.weighted import WeightedTerms
from pmrl_cli.training.checkpoint import Checkpoint
from pmrl_cli.training.devices import tensor_cores
from pmrl_cli.training.heldout import HeldOut, ValidationSet, held_out_retrieval, mean_share
from pmrl_cli.training.loader import Batch, BatchLoader, BatchSampler, TrainingData, map_inputs
from pmrl_cli.training.settings import FitSettings
from pmrl_cli.training.step import Step, StepOptions, Totals
from pmrl_cli.training.watch import held_out_statistics
from pmrl_cli.world import ALONE, World

__all__ = ["Interrupted", "Progress", "Schedule", "Trained", "schedule", "train"]

_UNREAD = {"cpu": 1, "cuda": 32}
"""Steps taken before their numbers are looked at: looking waits for a GPU."""

CRITERION = "criterion"
"""Name of a method's own criterion among the statistics of a line."""

NAMED = 5
"""Instances of a batch that an error names."""

_FINISHED_AT_ONCE = 4096
"""Training instances in a batch of ``Method.finish``."""

CHECKPOINT_SECONDS = 30.0
"""A run that dies loses at most about this much work."""


class Interrupted(Exception):  # noqa: N818 - not an error: the user asked
    """Training stopped because it was asked to; its checkpoint is saved."""


@dataclass(frozen=True)
class Progress:
    """One line of history: the state of training at an evaluation.

    Args:
        stage: which run of the fit this is: ``linear dropout 0.5`` (a recipe) or ``refit linear dropout 0.5``.
        step: optimiser steps done.
        epoch: passes over the training instances done.
        loss: mean training loss since the previous line; NaN at step 0.
        share: mean over validation instances of sigma_1^2 / k_i, in (0, 1].
        mrr: held-out mean reciprocal rank, mean over ordered pairs of modalities; NaN (like share, r1) in a refit.
        r1: held-out recall at 1, likewise.
        parts: means of the terms' parts since the previous line.
        statistics: what diagnosis says of the validation instances (``held_out_statistics``); empty in a refit.
    """

    stage: str
    step: int
    epoch: float
    loss: float
    share: float
    mrr: float
    r1: float
    parts: dict[str, float]
    statistics: dict[str, float]

    @property
    def quality(self) -> float:
        """What chooses between lines: the method's own criterion if it has one, else retrieval."""
        return self.statistics.get(CRITERION, self.mrr)


@dataclass(frozen=True)
class Schedule:
    """How long and in what portions to train.

    Args:
        batch_size: instances a step.
        steps: most steps.
        every: steps between evaluations.
    """

    batch_size: int
    steps: int
    every: int


def schedule(settings: FitSettings, instances: int) -> Schedule:
    """Return the schedule for a number of training instances."""
    # A power of two, at most a quarter of the instances: epochs have steps, and batches have negatives.
    batch = settings.batch_size or min(1024, max(32, 2 ** int(math.log2(max(2, instances / 4)))))
    batch = min(batch, instances)
    epoch = max(1, instances // batch)
    every = max(15, epoch // 4)
    return Schedule(batch, settings.steps if settings.steps is not None else max(2400, 20 * epoch), every)


@dataclass(frozen=True)
class Trained:
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


@dataclass(frozen=True)
class _Judge:
    """The validation instances, and what an evaluation asks of them."""

    inputs: Inputs
    validation: ValidationSet
    names: Sequence[str]
    seed: int
    method: Method
    world: World

    def __call__(self, encoder: Encoder) -> tuple[float, HeldOut, dict[str, float]]:
        """Return mean share, held-out retrieval and the statistics of diagnosis, as rank 0 finds them."""
        found = self._found(encoder) if self.world.rank == 0 else (math.nan, HeldOut(math.nan, math.nan), {})
        share, quality, statistics = self.world.agree(found)
        return share, HeldOut(*quality), statistics

    def _found(self, encoder: Encoder) -> tuple[float, HeldOut, dict[str, float]]:
        encoder.eval()
        present, key = self.inputs.present, self.method.spectrum_temperature
        with torch.no_grad():
            encoded = encoder(self.inputs)
            embeddings = encoded.vectors
            share = mean_share(embeddings, present)
            if not math.isfinite(share):
                return share, HeldOut(math.nan, math.nan), {}
            quality = held_out_retrieval(embeddings, present, self.validation.labels, self.validation.relevance)
            statistics = held_out_statistics(
                embeddings,
                present,
                self.names,
                seed=self.seed,
                temperature=getattr(self.method.settings, key) if key else None,
                sign_aware=self.method.sign_aware,
            )
            own = self.method.criterion(encoder, encoded, self.inputs)
            if own is not None:
                statistics[CRITERION] = own
        encoder.train()
        return share, quality, statistics


def train(
    method: Method,
    encoder: Encoder,
    terms: WeightedTerms,
    data: TrainingData,
    *,
    stage: str,
    names: Sequence[str],
    ids_of: Callable[[list[int]], list[str]],
    validation: Tensor | None,
    held_out: ValidationSet | None,
    plan: Schedule,
    settings: FitSettings,
    device: torch.device,
    bf16: bool,
    checkpoint: Checkpoint,
    report: Callable[[Progress, Schedule], None],
    should_stop: Callable[[], bool],
    deadline: float | None = None,
    world: World = ALONE,
) -> Trained:
    """Train an encoder and return it with its best weights.

    Args:
        method: whose facts and update are followed.
        encoder: of the method, at its start, on the CPU.
        terms: of the method, and those added to them.
        data: the instances that train.
        stage: name of the run, for its history.
        names: of the modalities, for its history.
        ids_of: ids of training instances by number, to name some in an error.
        validation: (n_validation,) where in the data those are that are ranked at each evaluation, held by every
            process; None runs all steps unjudged.
        held_out: those instances; None where ``validation`` is.
        plan: schedule.
        settings: of the fit.
        device: where to train.
        bf16: whether the encoder's products run in bfloat16.
        checkpoint: state is loaded from it if it holds any, and saved to it.
        report: called at each evaluation.
        should_stop: asked at each step; True, in any process, saves a checkpoint and raises.
        deadline: on the monotonic clock of rank 0; the first evaluation after it is the last.
        world: the processes that train together.

    Raises: DivergedError on a loss, gradient, embedding or weight that is not finite, before it reaches the weights
        that are kept or a checkpoint; ResourceError if a step has no room; Interrupted.
    """
    encoder.to(device)
    terms.to(device)
    options = StepOptions(settings.learning_rate, settings.mixup, settings.seed, bf16)
    take_step = Step(encoder, terms, options, method.update(encoder), world)
    sampler = BatchSampler(len(data), plan.batch_size, settings.seed)
    judge = None
    if validation is not None:
        held = map_inputs(data.inputs, lambda tensor: tensor[validation].to(device))
        assert held_out is not None
        judge = _Judge(held, held_out, names, settings.seed, method, world)
    history: list[Progress] = []
    best_state: dict[str, Tensor] = {}

    def evaluate(step: int, sums: dict[str, float], count: int) -> Progress:
        share, quality, statistics = math.nan, HeldOut(math.nan, math.nan), dict[str, float]()
        if judge is not None:
            share, quality, statistics = judge(encoder)
            if not math.isfinite(share):
                raise _diverged(f"embeddings that are not finite after step {step}{learned_on(places)}", settings)
        # Sorted, so that a history read back from a checkpoint is the same to the byte.
        means = {name: total / count for name, total in sorted(sums.items())} if count else {}
        loss = means.pop("loss", math.nan)
        line = Progress(
            stage, step, step / sampler.per_epoch, loss, share, quality.mrr, quality.r1, means, statistics
        )
        history.append(line)
        if judge is None or line is _best(history, method):
            best_state.clear()
            best_state.update({name: t.detach().cpu().clone() for name, t in encoder.state_dict().items()})
        report(line, plan)
        return line

    places = data.positions[:0]

    def learned_on(places: Tensor) -> str:
        shown = ", ".join(repr(i) for i in ids_of(places[:NAMED].tolist()))
        return f", whose {len(places)} instances are {shown}{', …' if len(places) > NAMED else ''}" if shown else ""

    def save() -> None:
        if not all(bool(torch.isfinite(parameter).all()) for parameter in take_step.parameters):
            raise _diverged(f"weights that are not finite after step {step}", settings)
        if world.rank == 0:
            lines = [asdict(line) for line in history]
            state = (encoder, terms, take_step.optimiser)
            checkpoint.save(*state, step=step, since=since, sums=sums, history=lines, best=best_state)

    unread: list[tuple[int, Tensor, Totals]] = []

    def settle() -> bool:
        """Look at the steps not looked at yet, add them up, and return whether anybody asks to stop."""
        stop = False
        for number, of_step, totals in unread:
            parts, norm, asked = totals.read()
            if not math.isfinite(parts["loss"] + norm):
                what = "loss" if not math.isfinite(parts["loss"]) else "gradient"
                found = norm if math.isfinite(parts["loss"]) else parts["loss"]
                raise _diverged(f"{what} {found} at step {number}{learned_on(of_step)}", settings)
            for name, part in parts.items():
                sums[name] = sums.get(name, 0.0) + part
            stop = stop or asked
        unread.clear()
        return stop

    step = 0
    sums: dict[str, float] = {}
    since = 0
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        tensor_cores(device, settings.precision),
    ):
        saved = checkpoint.load(encoder, terms, take_step.optimiser, world)
        if saved is not None:
            step, since, sums = saved.step, saved.since, saved.sums
            history += [Progress(**line) for line in saved.history]
            best_state.update(saved.best)
        else:
            evaluate(0, {}, 0)
        last_save = time.monotonic()
        encoder.train()
        if bool(world.sum(torch.tensor(float(should_stop())))):
            save()
            raise Interrupted
        loader = BatchLoader(data, sampler, device, world)
        # Closed by hand: a loop that is left leaves the thread that reads ahead for the collector.
        with closing(loader.after(step)) as ahead:
            while step < plan.steps:
                waited = 0 if judge is None else len(history) - 1 - history.index(_best(history, method))
                late = deadline is not None and since == 0 and world.agree(time.monotonic() > deadline)
                if waited >= settings.patience or late:
                    break
                batch = next(ahead)
                places = batch.places
                try:
                    totals = take_step(step + 1, batch, stop=should_stop())
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    raise _no_room(error, take_step, step + 1, batch) from None
                unread.append((step + 1, places, totals))
                step += 1
                since += 1
                due = step % plan.every == 0 or step == plan.steps
                stop = settle() if due or len(unread) >= _UNREAD[device.type] else False
                if due:
                    evaluate(step, sums, since)
                    sums, since = {}, 0
                # What is not looked at yet is not kept.
                if stop or (not unread and time.monotonic() - last_save > CHECKPOINT_SECONDS):
                    save()
                    last_save = time.monotonic()
                if stop:
                    raise Interrupted
        settle()
        save()  # so that a fit resumed in a later run finds this one done
    encoder.load_state_dict(best_state)
    encoder.to("cpu").eval()
    method.finish(encoder, _local_batches(data, world))
    return Trained(encoder, tuple(history), history[-1] if judge is None else _best(history, method), terms.learned())


def _local_batches(data: TrainingData, world: World) -> Iterator[Inputs]:
    """Yield the training instances of this process in order."""
    rows = data.positions[data.owners == world.rank]
    for first in range(0, len(rows), _FINISHED_AT_ONCE):
        some = rows[first : first + _FINISHED_AT_ONCE]
        yield map_inputs(data.inputs, partial(torch.index_select, dim=0, index=some))


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


def _diverged(found: str, settings: FitSettings) -> DivergedError:
    what = "training diverged"
    step = f"Lower --learning-rate (now {settings.learning_rate:g}) and add --restart."
    return DivergedError(what, found=found, expected="finite numbers", next_step=step)


def _best(history: list[Progress], method: Method) -> Progress:
    """Return the line whose weights are kept: by the method's own criterion if it has one, else by retrieval."""
    lines = history if method.closed_form_stands_in else history[1:] or history
    return max(lines, key=lambda line: line.quality)
