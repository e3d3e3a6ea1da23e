"""pmrl with the term bridge (docs/systems.md)."""

SETTINGS = {"terms": {"bridge": 3.0}}
