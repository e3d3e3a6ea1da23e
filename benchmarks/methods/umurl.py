"""A joint encoder of any subset of the modalities (docs/systems.md)."""

SETTINGS = {"objective": "umurl"}
