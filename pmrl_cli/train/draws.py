"""Random numbers of a fit: every draw is a function of the seed, what it is for and when, and of nothing before it.

So nothing random has to be saved with a state, and processes that share a batch draw alike where they must.
"""

from __future__ import annotations

import hashlib

import torch

__all__ = ["generator_of", "seed_torch"]


def _number(seed: int, purpose: str, *when: int) -> int:
    # 32 bits: of a longer seed torch's generator of the CPU takes the lower half alone.
    text = "\0".join([str(seed), purpose, *map(str, when)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])


def generator_of(seed: int, purpose: str, *when: int) -> torch.Generator:
    """Return a generator of the CPU that starts at a place of its own."""
    return torch.Generator().manual_seed(_number(seed, purpose, *when))


def seed_torch(seed: int, purpose: str, *when: int) -> None:
    """Let torch's default generators, of the CPU and of the GPUs in use, start there."""
    number = _number(seed, purpose, *when)
    # Not torch.manual_seed: for each device that is not in use it formats a stack, a tenth of a small step.
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(number)
