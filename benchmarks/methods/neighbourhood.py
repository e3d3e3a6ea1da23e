"""pmrl with the term neighbourhood (docs/systems.md)."""

SETTINGS = {"terms": {"neighbourhood": 10.0}}
