"""pmrl with the term separation (docs/systems.md)."""

SETTINGS = {"terms": {"separation": 1.0}}
