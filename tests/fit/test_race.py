"""When a candidate of a fit stops: over its peak, out of reach, or out of time."""

from pmrl_cli.fit.budget import Budget
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
    race = Race(Budget(None), refit=True)
    assert not race.is_over(history(0.3, 0.4, 0.39, 0.38))
    assert race.is_over(history(0.3, 0.4, 0.39, 0.38, 0.37))
    assert not race.is_over(history(0.4, 0.39, 0.395, 0.38, 0.37))
    assert not Race(Budget(None), refit=True, stops_early=False).is_over(history(0.4, 0.3, 0.2, 0.1))


def test_a_run_that_cannot_reach_the_best_before_it_is_stopped():
    race = Race(Budget(None), refit=True)
    race.finish("run", history(0.5, 0.6), history(0.6)[0], 0.02)
    assert race.is_over(history(0.2, 0.21, 0.22, 0.23))  # .01 an evaluation: .31 in eight
    assert not race.is_over(history(0.2, 0.3, 0.4, 0.5))
    assert not race.is_over(history(0.58, 0.582, 0.581, 0.583))


def test_a_run_is_given_up_only_before_its_peak_and_may_be_trained_to_it():
    race = Race(Budget(None), refit=True)
    rising, falling = history(0.2, 0.21, 0.22, 0.23), history(0.23, 0.22, 0.21, 0.2)
    assert not race.finish("best", history(0.5, 0.6), history(0.6)[0], 0.02)
    assert race.finish("rising", rising, rising[-1], 0.02)
    assert not race.finish("falling", falling, falling[0], 0.02)
    race.begin(to_its_peak=True)
    assert not race.is_over(rising)
    assert race.is_over(falling)
    assert not race.finish("rising", rising, rising[-1], 0.02)


def test_time_is_kept_for_the_refit_of_what_was_trained():
    clock = Clock()
    for refit, moments in ((True, ((108.0, True), (108.2, False))), (False, ((109.4, True),))):
        clock.now = 100.0
        budget = Budget(10.0, began=100.0, now=clock)
        race = Race(budget, refit=refit)
        race.begin()
        clock.now = 102.0  # two seconds for twenty steps, the best after ten: a refit of those takes 1.4 seconds, and
        # a twentieth of the budget is kept for writing the model
        race.finish("run", history(0.3, 0.5, 0.4), history(0.3, 0.5)[1], 0.0)
        for now, allowed in moments:
            clock.now = now
            assert budget.allows() == allowed
    assert not budget.allows(0.2)


def test_what_is_not_chosen_gives_its_time_back():
    clock = Clock()
    budget = Budget(10.0, began=95.0, now=clock)
    budget.keep("linear", 2.0)
    budget.keep("kernel", 9.0)
    budget.keep("kernel", 1.0)
    assert budget.left == 1.5  # a twentieth is kept for writing the model
    budget.keep_only("kernel")
    assert budget.left == 3.5
    assert budget.allows(3.5)
    assert not budget.allows(3.6)
    assert Budget(None).allows(1e9)


def test_a_run_ends_before_an_evaluation_that_would_be_late():
    clock = Clock()
    race = Race(Budget(10.0, began=100.0, now=clock), refit=False)
    race.begin()
    clock.now = 106.0
    assert not race.is_over(history(0.3, 0.4))  # three seconds each: the next at 109
    clock.now = 108.0
    assert race.is_over(history(0.3, 0.4))
