"""Objective drcl, of the column label: class targets, no use of pairs (docs/systems.md)."""

SETTINGS: dict[str, object] = {"objective": "drcl", "target": "label"}
