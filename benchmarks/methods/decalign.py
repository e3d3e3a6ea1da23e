"""Common and unique parts of every modality, with their transport (docs/systems.md)."""

SETTINGS = {"objective": "decalign"}
