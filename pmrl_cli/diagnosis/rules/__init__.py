"""The rules of the verdict, in the order in which they are asked."""

from __future__ import annotations

from pmrl_cli.diagnosis.rules import clouds, mapping, pairs, training
from pmrl_cli.diagnosis.rules.rule import Finding, Look, Rule

__all__ = ["RULES", "Finding", "Look", "Rule"]

RULES: tuple[Rule, ...] = (*pairs.RULES, *clouds.RULES, *mapping.RULES, *training.RULES)
