"""Objective fcid with everything else as in the default."""

SETTINGS: dict[str, object] = {"objective": "fcid"}
