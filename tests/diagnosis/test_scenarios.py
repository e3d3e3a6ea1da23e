"""Golden scenarios: the confusion matrix of what should be said of data with a known defect and what is."""

import pytest

from pmrl_cli.diagnosis import diagnose
from pmrl_cli.diagnosis.rules import RULES
from pmrl_cli.diagnosis.rules.verdict import SEVERITIES
from tests.scenarios import scenarios

MODEL_RULES = {"SATURATED", "STARVED", "NEG_TEMPERATURE"}
"""Asked with a model only: see test_verdict.py. Rules of rows are in test_row_runs.py."""


SCENARIOS = scenarios()


def node_at(result, path):
    """Follow a dotted path; lists by number."""
    for key in path.split("."):
        result = result[int(key)] if isinstance(result, list) else result[key]
    return result


@pytest.mark.parametrize("name", SCENARIOS)
def test_in_every_scenario_exactly_the_expected_rules_fire_the_gravest_first_with_evidence_that_is_there(name):
    data, expected = SCENARIOS[name]
    result = diagnose(data).as_dict()
    verdict = result["verdict"]
    findings, silent = verdict["findings"], verdict["not_fired"]
    fired = {finding["code"] for finding in findings}
    assert fired == expected
    assert not fired & {one["code"] for one in silent}
    assert all(one["evidence"] for one in silent)
    grave = [SEVERITIES.index(finding["severity"]) for finding in findings]
    assert grave == sorted(grave)
    assert (verdict["code"], verdict["severity"]) == (findings[0]["code"], findings[0]["severity"])
    for one in (*findings, *silent):
        assert all(node_at(result, path) is not None for path in one["evidence"])


def test_every_rule_has_a_scenario():
    codes = {rule.code for rule in RULES} | {"HEALTHY", "WEAK"}
    # ONE_WAY is information of its own: its scenario stands in test_verdict.py.
    elsewhere = MODEL_RULES | {"ONE_WAY", "LEAK", "TEMPLATES", "MISPAIRED_ROWS"}
    assert set().union(*(expected for _, expected in SCENARIOS.values())) == codes - elsewhere
