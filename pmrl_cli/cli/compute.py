"""Where and how a command computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pmrl_cli.flags import flag

__all__ = ["ComputeOptions", "prepare"]


@dataclass(frozen=True)
class ComputeOptions:
    """The device and the threads of a command."""

    PANEL: ClassVar = "Machine"

    device: str = flag("auto", "--device", help="Of closed forms, training, embedding: auto, cpu, cuda, cuda:N.")
    threads: int | None = flag(None, "--threads", min=1, help="CPU threads (default: all cores).")


def prepare(threads: int | None) -> None:
    """Set the number of threads, where one was asked for, and choose how this CPU multiplies and keeps memory."""
    import torch

    from pmrl_cli.train.devices import choose_matmul, tune_malloc

    if threads is not None:
        torch.set_num_threads(threads)
    choose_matmul()
    tune_malloc()
