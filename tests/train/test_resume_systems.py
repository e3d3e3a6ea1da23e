"""Fits of methods and terms that bring encoders, decoders or second views of their own, interrupted and continued."""

import pytest

from pmrl_cli.fit.fit import fit
from tests.train.fits import interrupt, same, settings_for, simulate, weights

CASES = {
    "decalign": {"objective": "decalign"},
    "mvae": {"objective": "mvae"},
    "terms": {"objective": "infonce", "terms": {"separation": 1.0, "bridge": 1.0, "neighbourhood": 1.0}},
}


@pytest.mark.parametrize("case", CASES)
def test_an_interrupted_fit_continues_bit_for_bit(tmp_path, case):
    settings = settings_for(steps=16, batch_size=32, dim=6, **CASES[case])
    whole = fit(simulate(), settings)
    interrupt(settings, tmp_path / "state", 10)
    resumed = fit(simulate(), settings, checkpoint=tmp_path / "state")
    assert same(weights(whole), weights(resumed))
    assert repr(whole.history) == repr(resumed.history)
    assert whole.history[-1].step == 16
