"""GCCA on linear and on kernel scores, in closed form, chosen and averaged as members are."""

SETTINGS: dict[str, object] = {"objective": "gcca"}
