"""Golden scenarios: the confusion matrix of what should be said of data with a known defect and what is."""

import pytest

from pmrl_cli.diagnosis import diagnose
from pmrl_cli.diagnosis.rules import RULES
from tests.scenarios import scenarios

MODEL_RULES = {"SATURATED", "STARVED", "NEG_TEMPERATURE"}
"""Asked with a model only: see test_verdict.py. Rules of rows are in test_row_runs.py."""


SCENARIOS = scenarios()


@pytest.mark.parametrize("name", SCENARIOS)
def test_in_every_scenario_exactly_the_expected_rules_fire(name):
    data, expected = SCENARIOS[name]
    verdict = diagnose(data).as_dict()["verdict"]
    fired = {finding["code"] for finding in verdict["findings"]}
    assert fired == expected
    assert not fired & {one["code"] for one in verdict["not_fired"]}
    assert all(one["evidence"] for one in verdict["not_fired"])


def test_every_rule_has_a_scenario():
    codes = {rule.code for rule in RULES} | {"HEALTHY", "WEAK"}
    # ONE_WAY is information of its own: its scenario stands in test_verdict.py.
    elsewhere = MODEL_RULES | {"ONE_WAY", "LEAK", "TEMPLATES", "MISPAIRED_ROWS"}
    assert set().union(*(expected for _, expected in SCENARIOS.values())) == codes - elsewhere
