"""The loop: AdamW on batches from the bank, held-out retrieval from step 0, the best weights kept."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from pmrl_cli.adapters import Adapters
from pmrl_cli.errors import DivergedError, ResourceError, is_out_of_memory
from pmrl_cli.objectives import Loss
from pmrl_cli.training.checkpoint import Checkpoint
from pmrl_cli.training.heldout import HeldOut, held_out_retrieval, mean_share
from pmrl_cli.training.settings import FitSettings
from pmrl_cli.training.watch import held_out_statistics

__all__ = ["Batches", "Interrupted", "Progress", "Schedule", "Trained", "mix", "schedule", "train"]

WEIGHT_DECAY = 0.1
"""On the departure from the closed form and on the residual branch; temperatures are not decayed."""

NAMED = 5
"""Instances of a batch that an error names."""

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
        parts: means of the objective's parts since the previous line.
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


class Batches:
    """The order in which training instances are drawn: a fresh permutation an epoch, from (seed, epoch) alone.

    A last batch that would be short is left out; the next permutation deals its instances elsewhere.

    Args:
        rows: (n,) row numbers of the training instances.
        batch_size: B <= n.
        seed: of the permutations.
    """

    def __init__(self, rows: Tensor, batch_size: int, seed: int) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self.per_epoch = len(rows) // batch_size
        self._seed = seed

    def after(self, step: int) -> Iterator[Tensor]:
        """Yield (B,) row numbers for ever, from the batch that follows ``step`` steps."""
        while True:
            epoch, first = divmod(step, self.per_epoch)
            generator = torch.Generator().manual_seed((self._seed << 32) + epoch)
            order = self.rows[torch.randperm(len(self.rows), generator=generator)]
            for index in range(first, self.per_epoch):
                yield order[index * self.batch_size : (index + 1) * self.batch_size]
                step += 1


def mix(scores: Sequence[Tensor], present: Tensor, concentration: float) -> tuple[list[Tensor], Tensor]:
    """Mix each instance of a batch with another one, in the same proportion in all its modalities.

    Args:
        scores: per modality (B, p_m).
        present: (B, K) bool.
        concentration: a of the Beta(a, a) that one proportion for the batch is drawn from, > 0.

    Returns: the mixed scores, and which modalities both have.

    Source: Vouitsis et al., "Data-Efficient Multimodal Fusion on a Single GPU" (FuseMix), CVPR 2024; departs: the
        other instance is drawn by permutation, where there two batches are mixed.
    """
    share = float(torch.distributions.Beta(concentration, concentration).sample())
    other = torch.randperm(len(present)).to(present.device)
    return [share * s + (1 - share) * s[other] for s in scores], present & present[other]


@dataclass(frozen=True)
class Trained:
    """What training leaves.

    Args:
        adapters: with the best weights restored (a refit: the last), on the CPU, in evaluation mode.
        history: one line an evaluation, step 0 first.
        best: the line whose weights were kept.
        learned: the objective's own trained parameters (log temperatures), by name, when training ended.
    """

    adapters: Adapters
    history: tuple[Progress, ...]
    best: Progress
    learned: dict[str, float]


@dataclass(frozen=True)
class _Judge:
    """The validation instances, and what an evaluation asks of them."""

    scores: list[Tensor]
    present: Tensor
    names: Sequence[str]
    seed: int
    temperature: float | None

    def __call__(self, adapters: Adapters) -> tuple[float, HeldOut, dict[str, float]]:
        """Return mean share, held-out retrieval and the statistics of diagnosis."""
        adapters.eval()
        with torch.no_grad():
            embeddings = adapters(self.scores)
            share = mean_share(embeddings, self.present)
            if not math.isfinite(share):
                return share, HeldOut(math.nan, math.nan), {}
            quality = held_out_retrieval(embeddings, self.present)
            statistics = held_out_statistics(
                embeddings, self.present, self.names, seed=self.seed, temperature=self.temperature
            )
        adapters.train()
        return share, quality, statistics


def train(
    adapters: Adapters,
    objective: nn.Module,
    scores: tuple[Tensor, ...],
    present: Tensor,
    *,
    stage: str,
    names: Sequence[str],
    rows: Tensor,
    ids_of: Callable[[list[int]], list[str]],
    validation: Tensor | None,
    plan: Schedule,
    settings: FitSettings,
    device: torch.device,
    bf16: bool,
    checkpoint: Checkpoint,
    report: Callable[[Progress, Schedule], None],
    should_stop: Callable[[], bool],
    deadline: float | None = None,
) -> Trained:
    """Train the adapters and return them with their best weights.

    Args:
        adapters: at the closed-form start, on the CPU.
        objective: the loss.
        scores: per modality (n, p_m) whitened scores.
        present: (n, K) bool.
        stage: name of the run, for its history.
        names: of the modalities, for its history.
        rows: (n_train,) training row numbers.
        ids_of: ids of row numbers, to name instances in an error.
        validation: (n_validation,) row numbers ranked at each evaluation; None runs all steps unjudged.
        plan: schedule.
        settings: of the fit.
        device: where to train.
        bf16: whether the adapters' products run in bfloat16.
        checkpoint: state is loaded from it if it holds any, and saved to it.
        report: called at each evaluation.
        should_stop: asked after each step; True saves a checkpoint and raises.
        deadline: on the monotonic clock; the first evaluation after it is the last.

    Raises: DivergedError on a loss, gradient, embedding or weight that is not finite, before it reaches the weights
        that are kept or a checkpoint; ResourceError if a step has no room; Interrupted.
    """
    adapters.to(device)
    objective.to(device)
    groups = [
        {"params": list(adapters.parameters()), "weight_decay": WEIGHT_DECAY},
        {"params": list(objective.parameters()), "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW([g for g in groups if g["params"]], lr=settings.learning_rate, fused=True)
    batches = Batches(rows, plan.batch_size, settings.seed)
    judge = None
    if validation is not None:
        held = [s[validation].to(device) for s in scores]
        temperature = getattr(objective, "temperature_spectrum", None)
        judge = _Judge(held, present[validation].to(device), names, settings.seed, temperature)
    history: list[Progress] = []
    best_state: dict[str, Tensor] = {}

    def evaluate(step: int, sums: dict[str, float], count: int) -> Progress:
        share, quality, statistics = math.nan, HeldOut(math.nan, math.nan), dict[str, float]()
        if judge is not None:
            share, quality, statistics = judge(adapters)
            if not math.isfinite(share):
                raise _diverged(f"embeddings that are not finite after step {step}{learned_on()}", settings)
        # Sorted, so that a history read back from a checkpoint is the same to the byte.
        means = {name: total / count for name, total in sorted(sums.items())} if count else {}
        loss = means.pop("loss", math.nan)
        line = Progress(
            stage, step, step / batches.per_epoch, loss, share, quality.mrr, quality.r1, means, statistics
        )
        history.append(line)
        if judge is None or line is _best(history):
            best_state.clear()
            best_state.update({name: t.detach().cpu().clone() for name, t in adapters.state_dict().items()})
        report(line, plan)
        return line

    batch = rows[:0]

    def learned_on() -> str:
        shown = ", ".join(repr(i) for i in ids_of(batch[:NAMED].tolist()))
        return f", whose {len(batch)} instances are {shown}{', …' if len(batch) > NAMED else ''}" if shown else ""

    parameters = [*adapters.parameters(), *objective.parameters()]

    def save() -> None:
        if not all(bool(torch.isfinite(parameter).all()) for parameter in parameters):
            raise _diverged(f"weights that are not finite after step {step}", settings)
        lines = [asdict(line) for line in history]
        state = (adapters, objective, optimiser)
        checkpoint.save(*state, step=step, since=since, sums=sums, history=lines, best=best_state)

    def differentiate(batch: Tensor) -> Loss | str:
        """Return the loss, its gradients left in the parameters, or what was said where memory is short."""
        try:
            taken = [s[batch].to(device, non_blocking=True) for s in scores]
            here = present[batch].to(device)
            if settings.mixup:
                taken, here = mix(taken, here, settings.mixup)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
                embeddings = adapters(taken)
            loss: Loss = objective(embeddings, here)
            optimiser.zero_grad(set_to_none=True)
            loss.value.backward()  # type: ignore[no-untyped-call]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return str(error).splitlines()[0]
        return loss

    step = 0
    sums: dict[str, float] = {}
    since = 0
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(settings.seed)
        saved = checkpoint.load(adapters, objective, optimiser)
        if saved is not None:
            step, since, sums = saved.step, saved.since, saved.sums
            history += [Progress(**line) for line in saved.history]
            best_state.update(saved.best)
        else:
            evaluate(0, {}, 0)
        last_save = time.monotonic()
        adapters.train()
        if should_stop():
            save()
            raise Interrupted
        for batch in batches.after(step):
            waited = 0 if judge is None else len(history) - 1 - history.index(_best(history))
            late = deadline is not None and since == 0 and time.monotonic() > deadline
            if step >= plan.steps or waited >= settings.patience or late:
                break
            loss = differentiate(batch)
            if isinstance(loss, str):
                raise _no_room(loss, differentiate, batch)
            value = float(loss.value.detach())
            gradient = float(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
            if not math.isfinite(value + gradient):
                what = "loss" if not math.isfinite(value) else "gradient"
                found = f"{what} {gradient if math.isfinite(value) else value} at step {step + 1}{learned_on()}"
                raise _diverged(found, settings)
            optimiser.step()
            step += 1
            since += 1
            for name, part in {"loss": loss.value, **loss.parts}.items():
                sums[name] = sums.get(name, 0.0) + float(part.detach())
            if step % plan.every == 0 or step == plan.steps:
                evaluate(step, sums, since)
                sums, since = {}, 0
            stop = should_stop()
            if stop or time.monotonic() - last_save > CHECKPOINT_SECONDS:
                save()
                last_save = time.monotonic()
            if stop:
                raise Interrupted
        save()  # so that a fit resumed in a later run finds this one done
    adapters.load_state_dict(best_state)
    adapters.to("cpu").eval()
    learned = {name: float(p.detach()) for name, p in objective.named_parameters()}
    return Trained(adapters, tuple(history), history[-1] if judge is None else _best(history), learned)


def _no_room(found: str, differentiate: Callable[[Tensor], Loss | str], batch: Tensor) -> ResourceError:
    """Return the error of a step without room, with the largest halving of its batch that has: tried, not guessed."""
    size = len(batch) // 2
    while size >= 2 and isinstance(differentiate(batch[:size]), str):
        size //= 2
    what = "not enough memory for a training step"
    return ResourceError(
        what,
        found=found,
        expected=f"room for batches of {len(batch)} instances",
        next_step=f"Batches of {size} have room: add --batch-size {size} --restart."
        if size >= 2
        else "Not even batches of 2 have room: free some, or use --device cpu.",
    )


def _diverged(found: str, settings: FitSettings) -> DivergedError:
    what = "training diverged"
    step = f"Lower --learning-rate (now {settings.learning_rate:g}) and add --restart."
    return DivergedError(what, found=found, expected="finite numbers", next_step=step)


def _best(history: list[Progress]) -> Progress:
    return max(history, key=lambda line: line.mrr)
