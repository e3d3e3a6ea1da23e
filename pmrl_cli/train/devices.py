"""Which device and arithmetic a fit uses."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pmrl_cli.errors import ResourceError, UsageError

__all__ = ["PRODUCT_ERROR", "allow_tf32", "choose_device", "choose_matmul", "choose_precision", "tune_malloc"]

PRODUCT_ERROR = 1e-6
"""Relative error of a product that passes for float32: it has 3e-7, one through bfloat16 2e-3."""

_WORTHWHILE = 1.25
"""How many times faster other products must be: where they are the same code, the clock alone must not choose."""


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_LARGEST_KEPT = 2**25  # the most it takes
_KEPT = 2**30


def tune_malloc() -> None:
    """Let glibc keep what is freed in pieces of up to 32 MB, 1 GB in all, for what is asked for next.

    A step asks for the same memory as the one before. Had it been given back, every page of it would have to be
    zeroed again by the system, which takes a tenth of a step. Another C library stays as it is.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT)


def choose_device(asked: str) -> torch.device:
    """Return the device for ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:N``.

    Of several processes of one machine each takes the GPU of its number there, as the launcher says it.

    Raises: UsageError for another name; ResourceError if the GPU is not there.
    """
    if asked == "auto":
        asked = "cuda" if torch.cuda.is_available() else "cpu"
    if asked == "cuda" and "LOCAL_RANK" in os.environ:
        asked = f"cuda:{os.environ['LOCAL_RANK']}"
    kind, _, index = asked.partition(":")
    if kind not in ("cpu", "cuda") or (":" in asked and not index.isdecimal()):
        raise UsageError(
            what="unknown device",
            found=repr(asked),
            expected="auto, cpu, cuda or cuda:N",
            next_step="Choose one with --device.",
        )
    there = torch.cuda.device_count() if kind == "cuda" else 1
    if int(index or 0) >= there:
        raise ResourceError(
            what="device is not there",
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


def choose_matmul() -> str:
    """Let products of float32 on this CPU run through oneDNN where that is float32 and faster; return which it is.

    On AMD processors torch's default (MKL) multiplies at half of oneDNN's speed. What lets torch use oneDNN lets it
    use bfloat16 too, where a processor has that: so the error is measured before the time.

    Returns: ``default`` or ``onednn``. It holds for the whole process, until it is asked again.
    """
    torch.set_float32_matmul_precision("highest")
    size = 512
    a, b = (torch.randn(size, size, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    exact = a.double() @ b.double()

    def seconds(precision: str) -> float:
        torch.set_float32_matmul_precision(precision)
        start = time.thread_time()
        product = a @ b
        taken = time.thread_time() - start
        error = float((product.double() - exact).norm() / exact.norm())
        return taken if error <= PRODUCT_ERROR else float("inf")

    if seconds("medium") < float("inf"):
        # In turn, and the least of each: another process slows some of them, never all.
        pairs = [(seconds("highest"), seconds("medium")) for _ in range(5)]
        default, other = (min(times) for times in zip(*pairs, strict=True))
        if default > _WORTHWHILE * other:
            return "onednn"
    torch.set_float32_matmul_precision("highest")
    return "default"


@contextmanager
def allow_tf32(device: torch.device, precision: str) -> Iterator[None]:
    """Let a GPU round what it multiplies in training to TF32, unless ``fp32`` was asked for; ranks stay exact."""
    before = torch.get_float32_matmul_precision()
    if device.type == "cuda" and precision != "fp32":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
