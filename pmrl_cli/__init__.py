"""pmrl: align precomputed embeddings of k modalities in one space.

Public names: ``Aligner`` (fit, transform, fuse, save, load), ``read_dataset``, ``diagnose``, ``evaluate``.
They are loaded when first used, so that ``pmrl --help`` does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__all__ = ["Aligner", "__version__", "diagnose", "evaluate", "read_dataset"]

__version__ = "0.1.0"

if TYPE_CHECKING:
    from pmrl_cli.aligner import Aligner
    from pmrl_cli.diagnosis import diagnose
    from pmrl_cli.files.join.dataset import read_dataset
    from pmrl_cli.retrieval import evaluate

_HOMES = {
    "Aligner": "pmrl_cli.aligner",
    "diagnose": "pmrl_cli.diagnosis",
    "evaluate": "pmrl_cli.retrieval",
    "read_dataset": "pmrl_cli.files.join.dataset",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    message = f"module 'pmrl_cli' has no attribute {name!r}"
    raise AttributeError(message)
