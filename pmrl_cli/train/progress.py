"""How training goes: the lines of a history, which of them is best, and for how long to go on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pmrl_cli.train.settings import FitSettings

__all__ = ["CRITERION", "Progress", "Schedule", "best_line", "schedule"]

CRITERION = "criterion"
"""Name of a method's own criterion among the statistics of a line."""


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


def best_line(history: Sequence[Progress], *, start: bool) -> Progress:
    """Return the line whose weights are kept: by the method's own criterion if it has one, else by retrieval.

    Args:
        history: of a run, step 0 first.
        start: whether that of step 0 may be it.
    """
    lines = history if start else history[1:] or history
    return max(lines, key=lambda line: line.quality)
