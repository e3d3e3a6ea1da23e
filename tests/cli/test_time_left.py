"""The end of a fit that is foretold comes then, where candidates are alike."""

import pytest

from pmrl_cli.cli.time_left import TimeLeft


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def run(time, clock, evaluations, seconds, *, evaluated=True, steps=900):
    """Evaluate a start and so many times more; return what was foretold, and when."""
    found = []
    for number in range(evaluations):
        if number:
            clock.now += seconds
        found.append((clock.now, time.evaluation(15 * number, steps, evaluated=evaluated)))
    return found


def test_no_time_is_estimated_before_the_first_step():
    clock = Clock()
    time = TimeLeft(clock)
    time.candidate(1, 3)
    assert run(time, clock, 1, 1.0) == [(0.0, None)]


def test_with_equal_candidates_the_end_is_estimated_from_the_second_on():
    clock = Clock()
    time = TimeLeft(clock)
    foretold = []
    time.candidate(1, 4)
    run(time, clock, 1, 0.0)  # a closed form
    for number in (2, 3, 4):
        time.candidate(number, 4)
        found = run(time, clock, 11, 2.0)  # 20 seconds
        foretold += [at + left for at, left in found if number > 2 and left is not None]
    again = run(time, clock, 2, 12.0, evaluated=False, steps=15)
    end = clock.now
    assert end == 72
    for said in foretold:
        assert said == pytest.approx(end, abs=4)
    assert again[-1][1] == 0


def test_what_is_trained_again_ends_with_its_steps():
    clock = Clock()
    time = TimeLeft(clock)
    time.evaluation(0, 60, evaluated=False)
    clock.now = 10.0
    assert time.evaluation(15, 60, evaluated=False) == 30


@pytest.mark.parametrize("evaluated", [True, False])
def test_the_time_left_of_a_run_is_estimated_from_its_second_evaluation(evaluated):
    clock = Clock()
    time = TimeLeft(clock)
    time.candidate(1, 1)
    assert time.evaluation(30, 60, evaluated=evaluated) is None
    clock.now = 10.0
    left = time.evaluation(45, 60, evaluated=evaluated)
    assert left is not None
    assert left > 0 if evaluated else left == 10
