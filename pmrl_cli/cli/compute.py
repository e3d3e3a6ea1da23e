"""What every command that computes does first."""

from __future__ import annotations

__all__ = ["prepare"]


def prepare(threads: int | None) -> None:
    """Set the number of threads, where one was asked for, and choose how this CPU multiplies and keeps memory."""
    import torch

    from pmrl_cli.training.devices import choose_products, keep_memory

    if threads is not None:
        torch.set_num_threads(threads)
    choose_products()
    keep_memory()
