"""pmrl with the term that keeps angles alike in all modalities (docs/systems.md)."""

SETTINGS = {"terms": {"geometry": 0.25}}
