"""The parts of the docs that are made from what statistics are declared with.

PYTHONPATH=. python -m tests.diagnosis.declared_docs     # writes them anew
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pmrl_cli.diagnosis.statistics  # noqa: F401 - declares them
from pmrl_cli.diagnosis.rules import RULES
from pmrl_cli.diagnosis.statistics.declared import SCOPES, table, with_scopes

DOCS = Path(__file__).parents[2] / "docs"
SCHEMA, TEXT = DOCS / "diagnose.schema.json", DOCS / "diagnose.md"


def schema_text(text: str) -> str:
    """The schema with the definition of every scope as it is declared."""
    return json.dumps(with_scopes(json.loads(text)), indent=1, ensure_ascii=False) + "\n"


def docs_text(text: str) -> str:
    """The page with the tables of all scopes and of the rules."""
    for scope in SCOPES:
        made = f"<!-- statistics: {scope} -->\n{table(scope)}\n<!-- end -->"
        place = rf"<!-- statistics: {scope} -->.*?<!-- end -->"
        text = re.sub(place, lambda _, made=made: made, text, flags=re.DOTALL)
    rules = "".join(f"| `{rule.code}` | {rule.condition} |\n" for rule in RULES)
    head = "| code | fires at |\n|---|---|\n"
    before, after = text.split(head)
    return before + head + rules + after[after.index("\n\n") + 1 :]


if __name__ == "__main__":
    for path, made in ((SCHEMA, schema_text), (TEXT, docs_text)):
        path.write_text(made(path.read_text(encoding="utf-8")), encoding="utf-8")
