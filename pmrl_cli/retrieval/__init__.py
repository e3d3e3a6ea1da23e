"""Cross-modal retrieval: exact ranks by blocks, their metrics, chance values and intervals."""

from __future__ import annotations

from pmrl_cli.retrieval.evaluation import Evaluation, Sampling, evaluate

__all__ = ["Evaluation", "Sampling", "evaluate"]
