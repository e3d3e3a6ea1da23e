"""When a candidate stops: it is over its peak, it cannot reach what was reached already, or the time is up."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from pmrl_cli.fit.budget import Budget
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
        budget: of the fit.
        refit: whether the chosen candidates will be trained again.
        stops_early: whether a run may end before the budget: not where there is only one to train.
    """

    def __init__(self, budget: Budget, *, refit: bool, stops_early: bool = True) -> None:
        self._budget, self._refit, self._stops_early = budget, refit, stops_early
        self._reached = float("-inf")
        self._began, self._to_its_peak = budget.now(), False

    def begin(self, *, to_its_peak: bool = False) -> None:
        """Take note that a candidate starts.

        Args:
            to_its_peak: whether it goes on although alone it cannot reach what was reached.
        """
        self._began, self._to_its_peak = self._budget.now(), to_its_peak

    def finish(self, name: str, history: Sequence[Progress], best: Progress, error: float) -> bool:
        """Take note of a candidate that has run, keep time to repeat it, and return whether it was given up.

        Args:
            name: of the candidate, under which time is kept.
            history: its evaluations.
            best: the best of them.
            error: standard error of its quality.
        """
        given_up = not self._to_its_peak and self._is_behind(history) and not _is_past_peak(history)
        self._reached = max(self._reached, best.quality - error)
        self._budget.keep(name, self._to_repeat(history, best))
        return given_up

    def _to_repeat(self, history: Sequence[Progress], best: Progress) -> float:
        steps = history[-1].step
        return self._refit * REFIT * (self._budget.now() - self._began) * best.step / steps if steps else 0.0

    def is_over(self, history: Sequence[Progress]) -> bool:
        """Return whether a run ends here, asked after each evaluation."""
        best = max(history, key=lambda line: line.quality)
        # The next evaluation would come as long after this one as this came after the last.
        if self._budget.left - self._to_repeat(history, best) < (self._budget.now() - self._began) / len(history):
            return True
        return self._stops_early and (_is_past_peak(history) or (not self._to_its_peak and self._is_behind(history)))

    def _is_behind(self, history: Sequence[Progress]) -> bool:
        """Return whether the gain of the last two evaluations would not reach what was reached."""
        qualities = [line.quality for line in history]
        if len(qualities) <= FALLS:
            return False
        gain = (max(qualities) - max(qualities[:-2])) / 2
        return max(qualities) + HORIZON * gain < self._reached


def _is_past_peak(history: Sequence[Progress]) -> bool:
    last = [line.quality for line in history][-FALLS - 1 :]
    return len(last) > FALLS and all(after < before for before, after in pairwise(last))
