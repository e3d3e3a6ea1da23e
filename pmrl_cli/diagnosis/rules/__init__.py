"""The rules of the verdict, in the order in which they are asked."""

from __future__ import annotations

from pmrl_cli.diagnosis.rules import mapping, modality, pairing, rows, training
from pmrl_cli.diagnosis.rules.rule import Finding, ResultView, Rule

__all__ = ["RULES", "Finding", "ResultView", "Rule"]

RULES: tuple[Rule, ...] = (*rows.RULES, *pairing.RULES, *modality.RULES, *mapping.RULES, *training.RULES)
