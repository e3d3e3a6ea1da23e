"""The default objective without kernel scores."""

SETTINGS: dict[str, object] = {"adapter": "mlp"}
