"""Objective arm, of the column label, with everything else as in the default."""

SETTINGS: dict[str, object] = {"objective": "arm", "target": "label"}
