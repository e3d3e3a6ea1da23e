"""When a candidate stops: it is over its peak, it cannot reach what was reached already, or the time is up."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise

from pmrl_cli.train.progress import Progress

__all__ = ["Race"]

FALLS = 3
"""Evaluations in a row, each below the one before, after which a run is over its peak. On a plateau, where they only
differ by noise, that is one case in 24; there ``--patience`` ends a run otherwise."""

HORIZON = 8
"""Evaluations over which a run is given the gain of its last two: one that would still be behind is stopped."""

REFIT = 1.4
"""Times that training again with the validation instances takes what training took up to the best evaluation: as many
epochs, of a quarter more instances, and a reserve."""


class Race:
    """Knows what the candidates that ran already have reached, and what repeating them would take.

    Args:
        deadline: on the monotonic clock, for everything; None for none.
        refit: whether the chosen candidates will be trained again.
        stops_early: whether a run may end before the deadline: not where there is only one to train.
        now: the clock.
    """

    def __init__(
        self,
        deadline: float | None,
        *,
        refit: bool,
        stops_early: bool = True,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._deadline, self._refit, self._stops_early, self._now = deadline, refit, stops_early, now
        self._reached = float("-inf")
        self._began = now()
        self._reserved = 0.0

    def reserve(self, seconds: float) -> None:
        """Keep time for what a refit repeats beside training: closed forms that took so long."""
        self._reserved += seconds * self._refit

    @property
    def late(self) -> bool:
        """Whether the time is up, but for what a refit takes."""
        return self._deadline is not None and self._now() + self._reserved > self._deadline

    def begin(self) -> None:
        """Take note that a candidate starts."""
        self._began = self._now()

    def finish(self, history: Sequence[Progress], best: Progress, error: float) -> None:
        """Take note of a candidate that has run.

        Args:
            history: its evaluations.
            best: the best of them.
            error: standard error of its quality.
        """
        self._reached = max(self._reached, best.quality - error)
        self.reserve(self._to_repeat(history, best))

    def _to_repeat(self, history: Sequence[Progress], best: Progress) -> float:
        steps = history[-1].step
        return REFIT * (self._now() - self._began) * best.step / steps if steps else 0.0

    def is_over(self, history: Sequence[Progress]) -> bool:
        """Return whether a run ends here, asked after each evaluation."""
        best = max(history, key=lambda line: line.quality)
        if self._deadline is not None:
            left = self._deadline - self._now() - self._reserved - self._refit * self._to_repeat(history, best)
            # The next evaluation would come as long after this one as this came after the last.
            if left < (self._now() - self._began) / len(history):
                return True
        if not self._stops_early:
            return False
        qualities = [line.quality for line in history]
        last = qualities[-FALLS - 1 :]
        if len(last) > FALLS and all(after < before for before, after in pairwise(last)):
            return True
        if len(qualities) > FALLS:
            gain = (max(qualities) - max(qualities[:-2])) / 2
            return max(qualities) + HORIZON * gain < self._reached
        return False
