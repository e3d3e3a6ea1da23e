"""docs/diagnose.md and the schema tell the truth: every rule with its condition, and every statistic, no more."""

import json
import re

import jsonschema
import pytest

from pmrl_cli.diagnosis import diagnose
from pmrl_cli.diagnosis.rules import RULES
from pmrl_cli.diagnosis.statistics import declared as registry
from pmrl_cli.diagnosis.statistics.declared import SCOPES, declared, notes, statistic
from pmrl_cli.stats.statistic import Statistic
from tests.diagnosis.declared_docs import SCHEMA, TEXT, docs_text, schema_text
from tests.simulate import simulate

PAGE = TEXT.read_text(encoding="utf-8")


def test_every_rule_is_there_with_its_condition():
    table = PAGE.split("| fires at |")[1].split("\n\n")[0]
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| (.*) \|$", table, re.MULTILINE))
    assert rows == {rule.code: rule.condition for rule in RULES}


def test_the_schema_and_the_tables_are_what_is_declared_whole():
    text = SCHEMA.read_text(encoding="utf-8")
    assert schema_text(text) == text, "write anew: python -m tests.diagnosis.declared_docs"
    assert docs_text(PAGE) == PAGE, "write anew: python -m tests.diagnosis.declared_docs"
    assert set(re.findall(r"<!-- statistics: (\w+) -->", PAGE)) == set(SCOPES)


def keys(section, path=""):
    for name, node in section.items():
        if isinstance(node, dict) and "status" not in node and name in {"gap", "probe", "hubness"}:
            yield from keys(node, f"{path}{name}.")
        else:
            yield path + name


def test_a_model_with_labels_has_all_declared_statistics_and_no_others():
    data = simulate(300, 3, 8)
    training = {
        "sign_aware": True,
        "temperatures": {"spectrum": 0.1, "instance": 0.1},
        "kept": [],
        "refitted": False,
        "history": [],
    }
    from pmrl_cli.diagnosis import diagnose_state, state_of

    result = diagnose_state(state_of(data, label="label"), data, training).as_dict()
    pair = dict(result["pair"]["m0|m1"])
    way = pair.pop("retrieval")["m0->m1"]
    sections = {
        "alignment": result["alignment"],
        "pair": pair,
        "direction": way,
        "modality": result["modality"]["m0"],
        "training": result["training"],
    }
    for scope, section in sections.items():
        # An order of the rows is sought only where a pair looks unpaired.
        assert set(keys(section)) == {one.key for one in declared(scope)} - {"order"}


@pytest.fixture
def throw_away(monkeypatch):
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))

    @statistic("shape.answer", "modality", formula="forty-two", chance="41", range="[42, 42]")
    def answer(evidence, m):
        return Statistic(42.0 + m, chance=41.0, n=evidence.state.instances)


@pytest.mark.usefixtures("throw_away")
def test_a_new_statistic_reaches_result_schema_page_and_docs_by_its_declaration_alone():
    result = diagnose(simulate(60, 2, 8)).as_dict()
    assert result["modality"]["m1"]["shape"]["answer"]["value"] == 43
    assert ("shape.answer", "forty-two", "41") in notes()
    assert "| `shape.answer` | forty-two | 41 | [42, 42] |" in docs_text(PAGE)
    made = json.loads(schema_text(SCHEMA.read_text(encoding="utf-8")))
    jsonschema.Draft202012Validator(made).validate(result)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8"))).validate(result)


def test_a_statistic_is_declared_once():
    with pytest.raises(ValueError, match="declared twice"):
        statistic("rho", "alignment", formula="", chance="", range="")(lambda _: None)
