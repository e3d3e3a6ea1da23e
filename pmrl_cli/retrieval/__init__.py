"""Cross-modal retrieval: exact ranks by blocks, their metrics, chance values and intervals."""

from __future__ import annotations

from pmrl_cli.retrieval.evaluation import Evaluation, evaluate

__all__ = ["Evaluation", "evaluate"]
