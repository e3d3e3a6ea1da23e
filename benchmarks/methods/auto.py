"""Every objective of --objective auto on every adapter."""

SETTINGS: dict[str, object] = {"objective": "auto"}
