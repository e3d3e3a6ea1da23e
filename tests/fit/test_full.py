"""What the race gave up and is a member all the same is trained to its peak; what learns more slowly is not tried."""

from dataclasses import replace

from pmrl_cli.fit import race
from pmrl_cli.fit.fit import fit
from tests.train.fits import settings_for, simulate


def fitted(monkeypatch, horizon):
    monkeypatch.setattr(race, "HORIZON", horizon)
    return fit(simulate(noise=0.2), settings_for(steps=90, adapter="linear", refit=False, dropout=None))


def test_a_member_that_was_given_up_is_what_it_is_without_a_race(monkeypatch):
    whole = {recipe.name: recipe for recipe in fitted(monkeypatch, 1e9).tried}
    assert list(whole) == ["linear start", "linear dropout 0", "linear dropout 0.5"]
    raced = fitted(monkeypatch, -1e9)  # everything is behind after four evaluations
    assert [recipe.name for recipe in raced.tried] == ["linear start", "linear dropout 0 in full"]
    assert replace(raced.tried[1].best, stage="linear dropout 0") == whole["linear dropout 0"].best
    assert "linear dropout 0 in full" in [recipe.name for recipe in raced.recipes]
    stages = [line.stage for line in raced.history]
    assert max(line.step for line in raced.history if line.stage == "linear dropout 0 in full") == 90
    assert "linear dropout 0" not in stages
    assert len(raced.tried) == raced.planned
    assert not raced.cut
