"""Pairwise InfoNCE on mixed instances (FuseMix)."""

SETTINGS: dict[str, object] = {"objective": "infonce", "mixup": 1.0}
