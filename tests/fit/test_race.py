"""When a candidate of a fit stops: over its peak, out of reach, or out of time."""

import pytest

from pmrl_cli.fit.race import Race
from pmrl_cli.train.progress import Progress


def history(*qualities, every=10):
    return [Progress("run", every * i, 0.0, 0.0, 0.0, q, 0.0, {}, {}) for i, q in enumerate(qualities)]


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_a_run_is_over_its_peak_after_three_falls_in_a_row():
    race = Race(None, refit=True)
    assert not race.is_over(history(0.3, 0.4, 0.39, 0.38))
    assert race.is_over(history(0.3, 0.4, 0.39, 0.38, 0.37))
    assert not race.is_over(history(0.4, 0.39, 0.395, 0.38, 0.37))
    assert not Race(None, refit=True, stops_early=False).is_over(history(0.4, 0.3, 0.2, 0.1))


def test_a_run_that_cannot_reach_the_best_before_it_is_stopped():
    race = Race(None, refit=True)
    race.finish(history(0.5, 0.6), history(0.6)[0], 0.02)
    assert race.is_over(history(0.2, 0.21, 0.22, 0.23))  # .01 an evaluation: .31 in eight
    assert not race.is_over(history(0.2, 0.3, 0.4, 0.5))
    assert not race.is_over(history(0.58, 0.582, 0.581, 0.583))


def test_time_is_kept_for_the_refit_of_what_was_trained():
    clock = Clock()
    race = Race(110.0, refit=True, now=clock)
    race.begin()
    clock.now = 102.0  # two seconds for twenty steps, the best after ten: a refit of those takes 1.4 seconds
    race.finish(history(0.3, 0.5, 0.4), history(0.3, 0.5)[1], 0.0)
    for now, late in ((108.5, False), (108.7, True)):
        clock.now = now
        assert race.late == late
    alone = Race(110.0, refit=False, now=clock)
    alone.begin()
    alone.finish(history(0.3, 0.5), history(0.3, 0.5)[1], 0.0)
    assert not alone.late


def test_a_run_ends_before_an_evaluation_that_would_be_late():
    clock = Clock()
    race = Race(110.0, refit=False, now=clock)
    race.begin()
    clock.now = 106.0
    assert not race.is_over(history(0.3, 0.4))  # three seconds each: the next at 109
    clock.now = 108.0
    assert race.is_over(history(0.3, 0.4))


@pytest.mark.parametrize("refit", [False, True])
def test_without_a_deadline_nothing_is_late(refit):
    race = Race(None, refit=refit)
    race.reserve(1e9)
    assert not race.late
