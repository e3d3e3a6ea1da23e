"""Pairwise InfoNCE from the closed form, linear adapters."""

SETTINGS: dict[str, object] = {"objective": "infonce", "adapter": "linear"}
