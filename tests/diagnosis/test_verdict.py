"""Rules one by one, on a diagnosis whose numbers are changed, and what a verdict always holds."""

import json

import numpy as np
import pytest

from pmrl_cli.diagnosis import diagnose_state, state_of
from pmrl_cli.diagnosis.rules import RULES
from pmrl_cli.diagnosis.rules.verdict import verdict_of
from tests.simulate import dataset_of, simulate


def result_of(data, training=None):
    found = diagnose_state(state_of(data), data, training).as_dict()
    return json.loads(json.dumps({key: value for key, value in found.items() if key != "verdict"}))


@pytest.fixture(scope="module")
def healthy():
    return json.dumps(result_of(simulate(400, 3, 32, noise=0.5)))


@pytest.fixture
def result(healthy):
    return json.loads(healthy)


def codes(result):
    return {finding.code for finding in verdict_of(result).findings}


def trained(data, spectrum, instance=0.1):
    """Return the diagnosis of a data set as if the published objective had made it at these temperatures."""
    training = {
        "sign_aware": False,
        "temperatures": {"spectrum": spectrum, "instance": instance},
        "kept": [],
        "refitted": False,
        "history": [],
    }
    return result_of(data, training)


def orthogonal_third(n=300, d=24):
    """Two modalities that coincide nearly and one that is orthogonal to both: a saddle of sigma_1."""
    latent = np.random.default_rng(0).normal(size=(n, d))
    noise = np.random.default_rng(1).normal(size=(2, n, d))
    third = np.random.default_rng(2).normal(size=(n, d))
    unit = latent / np.linalg.norm(latent, axis=1, keepdims=True)
    third -= (third * unit).sum(1, keepdims=True) * unit
    return dataset_of({"a": latent, "b": latent + 0.3 * noise[0], "c": third})


@pytest.fixture(scope="module")
def saturated():
    return trained(orthogonal_third(), 0.05)


def test_a_saturated_loss_is_named_with_a_better_temperature(saturated):
    verdict = verdict_of(saturated)
    found = next(finding for finding in verdict.findings if finding.code == "SATURATED")
    assert "from 0.05 to" in found.advice
    assert set(found.evidence) == {"training.saturation", "alignment.A"}
    suggested = float(found.advice.split()[-1])
    silent = verdict_of(trained(orthogonal_third(), suggested))
    assert "SATURATED" in {code for code, _, _ in silent.silent}
    same = np.random.default_rng(0).normal(size=(300, 24))
    assert "SATURATED" not in codes(trained(dataset_of(dict.fromkeys("abc", same)), 0.05))  # it is solved in space


def test_a_modality_that_the_gradient_does_not_reach_is_starved(saturated):
    verdict = verdict_of(saturated)
    assert [finding.subject for finding in verdict.findings if finding.code == "STARVED"] == [("c",)]
    assert "STARVED" not in codes(trained(simulate(300, 3, 24), 0.5))


def test_a_contrast_temperature_is_found_too_low_or_too_high():
    data = simulate(300, 2, 16, noise=0.4)
    for temperature, word in ((0.003, "too low"), (0.1, None), (5.0, "too high")):
        found = verdict_of(trained(data, None, temperature)).findings
        texts = [finding.text for finding in found if finding.code == "NEG_TEMPERATURE"]
        assert [word in text for text in texts] == ([True] if word else [])


def test_a_better_way_is_named():
    generator = np.random.default_rng(0)
    first = generator.normal(size=(600, 32))
    second = first + 0.9 * generator.normal(size=(600, 32))
    second[::10] *= 0.05  # with the offset: near the mean of all, a neighbour of all
    second += 0.6 * np.ones(32) * (np.arange(600) % 10 == 0)[:, None]
    first = first + 0.6 * np.ones(32)
    result = result_of(dataset_of({"a": first, "b": second}))
    ways = result["pair"]["a|b"]["retrieval"]
    assert ways["b->a"]["R@1"]["value"] - ways["a->b"]["R@1"]["value"] > 0.1
    found = next(finding for finding in verdict_of(result).findings if finding.code == "ONE_WAY")
    assert found.text.startswith("b->a finds partners more often than a->b")
    assert found.severity == "info"


def test_nothing_is_advised_whose_interval_reaches_zero(result):
    offset = {"value": 0.5, "chance": 0, "ci": [0.4, 0.6], "ci_method": "normal", "se": 0.05, "p": None, "n": 400}
    for pair in result["pair"].values():
        pair["gap"]["gap_share"] |= offset
    centring = next(one for one in result["remedies"] if one["action"] == "centre")
    centring["delta"] |= {"value": 0.2, "ci": [-0.01, 0.41]}
    assert "MODALITY_GAP" not in codes(result)
    centring["delta"]["ci"] = [0.1, 0.3]
    found = next(finding for finding in verdict_of(result).findings if finding.code == "MODALITY_GAP")
    assert "centre each modality" in found.advice


def test_an_upper_bound_of_the_mispair_rate_is_no_finding(result):
    result["modality"]["m0"]["mispair_rate"] |= {"value": 0.1, "ci": [0.05, 0.15], "status": "upper_bound"}
    assert "MISPAIRS" not in codes(result)
    result["modality"]["m0"]["mispair_rate"]["status"] = "ok"
    assert "MISPAIRS" in codes(result)


def test_rules_whose_statistics_are_absent_are_skipped(result):
    silent = {code for code, _, _ in verdict_of(result).silent}
    fired = codes(result)
    unasked = {rule.code for rule in RULES} - silent - fired
    assert unasked == {"SATURATED", "STARVED", "NEG_TEMPERATURE", "SHIFTED_JOIN", "LEAK", "TEMPLATES"} - silent


def test_few_groups_are_not_found_unpaired_but_too_few(result):
    for pair in result["pair"].values():
        pair["strength"] = {**pair["strength"], "value": 1.9}
    assert "NO_PAIRING" in codes(result)
    result["inputs"] |= {"groups": 9, "group": "kind"}
    (few,) = [finding for finding in verdict_of(result).findings if finding.code == "N_SMALL"]
    assert "in 9 groups: pairing cannot be told from chance" in few.text
    assert "collect 50 groups or more" in few.advice
    assert not {"NO_PAIRING", "UNRELATED_PAIR"} & codes(result)


def test_a_leak_that_mispaired_vectors_explain_stands_behind_them(result):
    first, second = result["inputs"]["modalities"][:2]
    leaks = {"judged": 400, "sharing": 40, "modalities": {first: 40, second: 0}}
    result["inputs"]["leaks"] = leaks
    first_said = verdict_of(result).findings[0]
    assert (first_said.code, first_said.severity) == ("LEAK", "fail")
    result["modality"][first]["mispair_rate"] |= {"value": 0.1, "ci": [0.08, 0.12], "status": "ok"}
    found = {one.code: one for one in verdict_of(result).findings}
    assert list(found)[:2] == ["MISPAIRS", "LEAK"]
    assert found["LEAK"].severity == "warn"
    assert found["LEAK"].command == found["MISPAIRS"].command
    for unexplained in (
        {"sharing": 400},
        {"modalities": {first: 40, second: 40}},
    ):
        result["inputs"]["leaks"] = leaks | unexplained
        assert verdict_of(result).findings[0].code == "LEAK"
