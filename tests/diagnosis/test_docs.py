"""docs/diagnose.md tells the truth: it has every rule with its condition, and every statistic."""

import json
import re
from pathlib import Path

from pmrl_cli.diagnosis.rules import RULES

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "diagnose.md").read_text(encoding="utf-8")
SCHEMA = json.loads((DOCS / "diagnose.schema.json").read_text(encoding="utf-8"))


def statistics(node):
    """Names of the properties that are statistics, wherever they stand in the schema."""
    if isinstance(node, dict):
        for name, child in node.get("properties", {}).items():
            if isinstance(child, dict) and child.get("$ref") == "#/$defs/statistic":
                yield name
        for child in node.values():
            yield from statistics(child)
    elif isinstance(node, list):
        for child in node:
            yield from statistics(child)


def test_every_rule_is_there_with_its_condition():
    table = TEXT.split("| fires at |")[1].split("\n\n")[0]
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| (.*) \|$", table, re.MULTILINE))
    assert rows == {rule.code: rule.condition for rule in RULES}


def test_every_statistic_is_there():
    missing = {name for name in statistics(SCHEMA) if not re.search(rf"(?<!\w){re.escape(name)}(?!\w)", TEXT)}
    assert not missing
