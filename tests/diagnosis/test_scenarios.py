"""Golden scenarios: the confusion matrix of what should be said of data with a known defect and what is."""

from pmrl_cli.diagnosis import diagnose
from pmrl_cli.diagnosis.rules import RULES
from tests.scenarios import scenarios

MODEL_RULES = {"SATURATED", "STARVED", "NEG_TEMPERATURE"}
"""Asked with a model only: see test_verdict.py. Rules of rows are in test_row_runs.py."""


def test_in_every_scenario_exactly_the_expected_rules_fire():
    codes = {rule.code for rule in RULES} | {"HEALTHY", "WEAK"}
    missed, false, heard = {}, {}, set()
    for name, (data, expected) in scenarios().items():
        verdict = diagnose(data).as_dict()["verdict"]
        fired = {finding["code"] for finding in verdict["findings"]}
        silent = {one["code"] for one in verdict["not_fired"]}
        assert fired <= codes
        assert not fired & silent
        assert all(one["evidence"] for one in verdict["not_fired"])
        heard |= fired
        if expected - fired:
            missed[name] = expected - fired
        if fired - expected:
            false[name] = fired - expected
    assert not missed
    assert not false
    # ONE_WAY is information of its own: its scenario stands in test_verdict.py.
    assert heard == codes - MODEL_RULES - {"ONE_WAY", "LEAK", "TEMPLATES", "MISPAIRED_ROWS"}
