"""Objective pmrl-paper with everything else as in the default."""

SETTINGS: dict[str, object] = {"objective": "pmrl-paper"}
