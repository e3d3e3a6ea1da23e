"""A budget binds inside the closed forms too, and what it cut is said."""

import time

import numpy as np
import pytest

from pmrl_cli import Aligner
from pmrl_cli.fit.context import Hooks
from pmrl_cli.fit.fit import fit
from pmrl_cli.fit.race import Race
from pmrl_cli.fit.starts import FAST_LANDMARKS, FAST_RIDGE, _Search
from tests.train.fits import settings_for, simulate


def features(rows=240):
    rng = np.random.default_rng(0)
    latent = rng.standard_normal((rows, 6))
    mixing = rng.standard_normal((2, 6, 12))
    return {f"m{m}": latent @ mixing[m] + rng.standard_normal((rows, 12)) for m in range(2)}


@pytest.fixture
def seconds(monkeypatch):
    """A clock on which solving a closed form takes ten seconds and nothing else any; the number of those solved."""
    solve, clock = _Search._solved_at, {"now": 0.0, "solved": 0}

    def slow(self, chosen, ridge):
        clock["now"] += 10.0
        clock["solved"] += 1
        return solve(self, chosen, ridge)

    monkeypatch.setattr(_Search, "_solved_at", slow)
    monkeypatch.setattr("pmrl_cli.fit.plan.monotonic", lambda: clock["now"])
    return clock


def fitted(budget):
    aligner = Aligner(budget=budget, adapter="linear", steps=0, test=0.2, device="cpu")
    return aligner.fit(features(), hooks=Hooks(began=0.0))


@pytest.mark.parametrize(("budget", "solved"), [(1.0, 1), (25.0, 1), (45.0, 2), (55.0, 3), (10_000.0, None)])
def test_closed_forms_are_compared_while_there_is_room_for_another_and_for_what_follows(seconds, budget, solved):
    # Each takes 10 s; that of the best form and its refit are kept, 10 s each.
    said = fitted(budget).texts["metrics.json"]
    assert ("closed forms compared in part" in said) == (solved is not None)
    if solved is not None:
        assert seconds["solved"] == solved
        assert f"budget {budget:g}s: 1 of 1 candidates tried, closed forms compared in part" in said
    assert ("without the refit" in said) == (budget == 1.0)


def test_where_kernels_cannot_be_searched_there_is_the_one_of_a_fast_fit(monkeypatch):
    # Without it a budget of twice what --fast takes gave half of its MRR on the sample data.
    monkeypatch.setattr(_Search, "_affords", lambda _, kernel, times: kernel.landmarks * times <= 2 * FAST_LANDMARKS)
    found = fit(simulate(), settings_for(steps=0, adapter="auto", budget=1000.0), hooks=Hooks(began=time.monotonic()))
    kernels = [r.closed_form for r in found.tried if r.closed_form.config.features.kind == "kernel"]
    assert [(k.config.features.landmarks, k.config.ridge) for k in kernels] == [(FAST_LANDMARKS, FAST_RIDGE)]
    assert not found.whole


def test_a_method_whose_training_had_no_room_is_not_said_to_have_trained(monkeypatch):
    # Its only run is begun, to have a model at all, and ends before its first step.
    monkeypatch.setattr(Race, "is_over", lambda *_: True)
    found = fit(simulate(), settings_for(objective="decalign", steps=30, adapter="linear"))
    assert all(recipe.taken == 0 for recipe in found.tried)
    assert found.chosen == "closed form (linear); nothing was trained"


def test_the_card_promises_no_repetition_of_what_time_cut(seconds):
    assert "tries the same, as far as it comes in 45 s" in fitted(45.0).texts["README.md"]
    assert "makes it again" in fitted(None).texts["README.md"]
