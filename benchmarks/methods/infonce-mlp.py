"""Pairwise InfoNCE from the closed form, residual MLP adapters."""

SETTINGS: dict[str, object] = {"objective": "infonce", "adapter": "mlp"}
