"""What is chosen where training makes it worse, and what --trained keeps then."""

from pmrl_cli.fit.fit import fit
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
