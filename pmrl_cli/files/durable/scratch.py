"""Working arrays that fit a memory budget: in memory while it lasts, then in files that vanish with the process."""

from __future__ import annotations

import os
import resource
import tempfile
import weakref
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt

__all__ = ["Scratch", "available_memory"]


def available_memory() -> int:
    """Return the bytes of memory this process may still take, by the machine, its control group and its limits."""
    table = Path("/proc/meminfo")
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for line in table.read_text(encoding="ascii").splitlines() if table.exists() else ():
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
    group = Path("/sys/fs/cgroup")
    if (group / "memory.max").exists():
        most = (group / "memory.max").read_text(encoding="ascii").strip()
        if most != "max":
            used = int((group / "memory.current").read_text(encoding="ascii"))
            free = min(free, max(0, int(most) - used))
    limit, table = resource.getrlimit(resource.RLIMIT_AS)[0], Path("/proc/self/statm")
    if limit != resource.RLIM_INFINITY and table.exists():
        used = int(table.read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        free = min(free, max(0, limit - used))
    return free


class Scratch:
    """Allocates float32 arrays within a budget; what an array took is free again once it is no longer referenced.

    Args:
        max_memory: bytes that arrays may take in memory; None is half of what is available now, divided among the
            processes of one command on this machine.
    """

    def __init__(self, max_memory: int | None = None) -> None:
        here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        self._left = available_memory() // (2 * here) if max_memory is None else max_memory

    def empty(self, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """Return an uninitialised float32 array; past the budget it is a memory map of a deleted file."""
        size = 4 * prod(shape)
        if size <= self._left or size == 0:
            self._left -= size
            array = np.empty(shape, dtype=np.float32)
            weakref.finalize(array, self._take_back, size)
            return array
        with tempfile.TemporaryFile() as file:
            # Reserved now: a hole that cannot be filled later would end the process with a bus error.
            os.posix_fallocate(file.fileno(), 0, size)
            # The mapping keeps the deleted file alive; the kernel writes its pages back when memory is short.
            return np.memmap(file, dtype=np.float32, mode="w+", shape=shape)

    def _take_back(self, size: int) -> None:
        self._left += size
