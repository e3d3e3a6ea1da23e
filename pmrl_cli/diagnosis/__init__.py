"""Diagnosis: are the modalities aligned beyond chance, how well, and what is wrong if they are not.

The public names are loaded when first used, so that importing one module of this package does not load all of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__all__ = [
    "FLAGGED",
    "Diagnosis",
    "Embedded",
    "Header",
    "Mispairs",
    "State",
    "StateSampling",
    "diagnose",
    "diagnose_state",
    "notes",
    "state_of",
]

if TYPE_CHECKING:
    from pmrl_cli.diagnosis.mispairing import FLAGGED, Mispairs
    from pmrl_cli.diagnosis.run import Diagnosis, Embedded, StateSampling, diagnose, diagnose_state, state_of
    from pmrl_cli.diagnosis.state.accumulate import State
    from pmrl_cli.diagnosis.state.header import Header
    from pmrl_cli.diagnosis.statistics.declared import notes

_HOMES = {
    "FLAGGED": "mispairing",
    "Diagnosis": "run",
    "Embedded": "run",
    "Header": "state.header",
    "Mispairs": "mispairing",
    "State": "state.accumulate",
    "StateSampling": "run",
    "diagnose": "run",
    "diagnose_state": "run",
    "notes": "statistics.declared",
    "state_of": "run",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
