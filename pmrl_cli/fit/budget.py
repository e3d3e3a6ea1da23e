"""The time that a fit may take, and what of it is kept for what must still be done."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from pmrl_cli.process_group import SINGLE_PROCESS, ProcessGroup

__all__ = ["Budget"]

WRITING, WRITING_SHARE = "writing", 0.05
"""Of a budget, what is kept for choosing the members and writing the model."""


class Budget:
    """Seconds from the start of a command to its end.

    Args:
        seconds: None for any number.
        began: on the monotonic clock.
        processes: that fit together and agree: rank 0 looks at the clock.
        now: the clock.
    """

    def __init__(
        self,
        seconds: float | None,
        *,
        began: float = 0.0,
        processes: ProcessGroup = SINGLE_PROCESS,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._deadline = math.inf if seconds is None else began + seconds
        self._processes, self.now = processes, now
        self._kept = {} if seconds is None else {WRITING: WRITING_SHARE * seconds}

    @property
    def left(self) -> float:
        """Seconds, less what is kept; infinite without a limit. As this process sees it."""
        return self._deadline - self.now() - sum(self._kept.values())

    def allows(self, seconds: float = 0.0) -> bool:
        """Return whether so many are left, as rank 0 sees it."""
        return math.isinf(self._deadline) or bool(self._processes.broadcast_json(self.left >= seconds))

    def keep(self, name: str, seconds: float) -> None:
        """Keep time for something, in place of what was kept under that name."""
        self._kept[name] = seconds

    def keep_only(self, *names: str) -> None:
        """Give back what was kept under other names."""
        self._kept = {name: seconds for name, seconds in self._kept.items() if name in (*names, WRITING)}
