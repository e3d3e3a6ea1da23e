"""How long a test waits for a process before it counts as hung."""

HUNG = 900
"""Seconds. No claim about speed: a busy machine takes many times what a quiet one does, a hang takes for ever."""
