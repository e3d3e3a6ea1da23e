"""``pmrl`` and ``python -m pmrl_cli``: the start of a command, before any library is loaded."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Run the command line."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing to put away yet: end without a trace
    # PyArrow loads pandas, where it is installed, for each array it gives to NumPy: half a second for nothing.
    sys.modules["pandas"] = None  # type: ignore[assignment] # as the import system marks what is not there
    from pmrl_cli.cli.main import run

    run()


if __name__ == "__main__":
    main()
