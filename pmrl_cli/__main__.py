"""``pmrl`` and ``python -m pmrl_cli``: the start of a command, before any library is loaded."""

from __future__ import annotations

import os
import signal
from types import FrameType


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, but end at once where a module is being imported.

    Half a module is no state to go on from, and NumPy's import even swallows the exception.
    """
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        frame = frame.f_back
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line."""
    signal.signal(signal.SIGINT, _interrupt)
    from pmrl_cli.cli.main import run

    run()


if __name__ == "__main__":
    main()
