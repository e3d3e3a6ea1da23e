"""How long a fit will still take, from what its candidates have taken."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["TimeLeft"]

USUAL = 8
"""Evaluations of a candidate, before one has run to its end."""


class TimeLeft:
    """Knows when the candidates of a fit began, and how many evaluations they took.

    Args:
        now: the clock.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._took: list[tuple[float, int]] = []
        """Seconds and evaluations of the candidates that were trained to their end."""
        self._left, self._began, self._evaluations, self._first = 0, now(), 0, 0

    def candidate(self, number: int, count: int) -> None:
        """Take note that a candidate begins."""
        self._finish()
        self._left = count - number

    def _finish(self) -> None:
        if self._evaluations > 1:  # a closed form is evaluated once
            self._took.append((self._now() - self._began, self._evaluations))
        self._began, self._evaluations = self._now(), 0

    def evaluation(self, step: int, steps: int, *, evaluated: bool) -> float | None:
        """Return the seconds until the end, at an evaluation; None where nothing is known yet.

        Args:
            step: of the run.
            steps: at most.
            evaluated: whether it is a candidate; else one of those that are trained again, for so many steps.
        """
        if step == 0 and not evaluated:
            self._finish()
            self._left = 0
        self._evaluations += 1
        if self._evaluations == 1:
            self._first = step  # of a run that goes on, where it was interrupted
            return None
        each = (self._now() - self._began) / (self._evaluations - 1)
        if not evaluated:
            return (self._now() - self._began) * (steps - step) / (step - self._first)
        usual = sum(count for _, count in self._took) / len(self._took) if self._took else USUAL
        whole = sum(seconds for seconds, _ in self._took) / len(self._took) if self._took else usual * each
        # One to train again, up to its best, which comes halfway, on all that chose as well.
        return max(1.0, usual - self._evaluations) * each + self._left * whole + 0.6 * whole
