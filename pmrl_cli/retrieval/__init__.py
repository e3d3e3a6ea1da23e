"""Cross-modal retrieval: exact ranks by blocks, their metrics, chance values and intervals.

The public names are loaded when first used, so that importing one module of this package does not load all of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__all__ = ["Evaluation", "Sampling", "evaluate"]

if TYPE_CHECKING:
    from pmrl_cli.retrieval.evaluation import Evaluation, Sampling, evaluate


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(import_module(f"{__name__}.evaluation"), name)
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
