"""Diagnosis: are the modalities aligned beyond chance, how well, and what is wrong if they are not."""

from __future__ import annotations

from pmrl_cli.diagnosis.report import Diagnosis, diagnose

__all__ = ["Diagnosis", "diagnose"]
