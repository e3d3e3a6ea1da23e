"""The rules of the verdict, in the order in which they are asked."""

from __future__ import annotations

from pmrl_cli.diagnosis.rules import mapping, training
from pmrl_cli.diagnosis.rules import modality as clouds
from pmrl_cli.diagnosis.rules import pairing as pairs
from pmrl_cli.diagnosis.rules.rule import Finding, ResultView, Rule

__all__ = ["RULES", "Finding", "ResultView", "Rule"]

RULES: tuple[Rule, ...] = (*pairs.RULES, *clouds.RULES, *mapping.RULES, *training.RULES)
