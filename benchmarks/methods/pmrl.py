"""The default: what pmrl fit does without a flag."""

SETTINGS: dict[str, object] = {}
