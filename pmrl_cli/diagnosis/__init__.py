"""Diagnosis: are the modalities aligned beyond chance, how well, and what is wrong if they are not."""

from __future__ import annotations

from pmrl_cli.diagnosis.header import Header
from pmrl_cli.diagnosis.mispairs import Mispairs
from pmrl_cli.diagnosis.report import Diagnosis, diagnose, diagnose_state, state_of
from pmrl_cli.diagnosis.state import State
from pmrl_cli.diagnosis.suspects import FLAGGED

__all__ = ["FLAGGED", "Diagnosis", "Header", "Mispairs", "State", "diagnose", "diagnose_state", "state_of"]
