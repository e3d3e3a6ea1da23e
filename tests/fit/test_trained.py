"""What is chosen where training makes it worse, and what --trained keeps then."""

import pytest

from pmrl_cli.closed_form.init import GccaConfig
from pmrl_cli.closed_form.projection import FeatureMap
from pmrl_cli.fit.fit import fit
from pmrl_cli.fit.result import ClosedForm, Recipe
from pmrl_cli.fit.search import _best_alone
from pmrl_cli.train.heldout import HeldOut
from pmrl_cli.train.progress import CRITERION, Progress
from tests.train.fits import settings_for, simulate

HARMFUL = {"adapter": "linear", "steps": 30, "learning_rate": 0.3}


def test_a_closed_form_is_chosen_where_training_only_harms():
    fitted = fit(simulate(), settings_for(**HARMFUL))
    assert [recipe.best.step for recipe in fitted.recipes] == [0]
    assert fitted.held_out.mrr == fitted.start.mrr
    assert not fitted.helped
    assert fitted.chosen == "closed form (linear); training with pmrl did not help"


def test_trained_keeps_the_trained_weights_and_says_that_they_are_worse():
    fitted = fit(simulate(), settings_for(**HARMFUL, trained=True))
    assert all(recipe.best.step > 0 for recipe in fitted.recipes)
    assert fitted.held_out.mrr < fitted.start.mrr
    assert not fitted.helped
    assert "a closed form ranked better" in fitted.chosen
    assert fitted.chosen.startswith(f"linear, trained {fitted.recipes[0].best.step} steps with pmrl; ")


def test_trained_says_nothing_more_where_training_helps():
    fitted = fit(simulate(noise=0.2), settings_for(steps=100, trained=True))
    assert fitted.held_out.mrr > fitted.start.mrr
    assert fitted.helped
    assert "better" not in fitted.chosen


def recipe(objective, kind, mrr, criterion):
    line = Progress("", 15, 1.0, 0.0, 0.0, mrr, 0.0, {}, {CRITERION: criterion})
    form = ClosedForm(GccaConfig(FeatureMap(kind, squash=True), 0.1, 1.0, 8), HeldOut(mrr, 0.0))
    return Recipe(f"{kind} dropout 0", objective, form, 0.0, line, line, {}, 15, 15)


@pytest.mark.parametrize(("objective", "best"), [("decalign", 11), ("mvae", 12)])
def test_losses_choose_within_a_kind_of_components_and_criteria_between_them_too(objective, best):
    # Losses of decalign hold how well components are told apart: those of kernels were always the greater.
    tried = [recipe(objective, "kernel", 0.53, -2.0), recipe(objective, "kernel", 0.51, -1.5)]
    tried.append(recipe(objective, "linear", 0.43, -1.0))
    assert _best_alone(tried, [10, 11, 12]) == best
