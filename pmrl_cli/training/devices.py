"""Which device and arithmetic a fit uses."""

from __future__ import annotations

import os

import torch

from pmrl_cli.errors import ResourceError, UsageError

__all__ = ["choose_device", "choose_precision"]


def choose_device(asked: str) -> torch.device:
    """Return the device for ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:N``.

    Of several processes of one machine each takes the GPU of its number there, as the launcher says it.

    Raises: UsageError for another word; ResourceError if the GPU is not there.
    """
    if asked == "auto":
        asked = "cuda" if torch.cuda.is_available() else "cpu"
    if asked == "cuda" and "LOCAL_RANK" in os.environ:
        asked = f"cuda:{os.environ['LOCAL_RANK']}"
    kind, _, index = asked.partition(":")
    if kind not in ("cpu", "cuda") or (":" in asked and not index.isdecimal()):
        what = "unknown device"
        raise UsageError(
            what, found=repr(asked), expected="auto, cpu, cuda or cuda:N", next_step="Choose one with --device."
        )
    there = torch.cuda.device_count() if kind == "cuda" else 1
    if int(index or 0) >= there:
        what = "device is not there"
        raise ResourceError(
            what,
            found=f"{there} CUDA devices" if kind == "cuda" else "one CPU",
            expected=repr(asked),
            next_step="Use --device cpu, or auto.",
        )
    return torch.device(asked)


def choose_precision(asked: str, device: torch.device) -> bool:
    """Return whether adapters multiply in bfloat16: where asked to, or by ``auto`` on a GPU that has it."""
    if asked == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return asked == "bf16"
