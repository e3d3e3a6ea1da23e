"""``pmrl`` and ``python -m pmrl_cli``: the start of a command, before any library is loaded."""

from __future__ import annotations

import signal
import sys


class _WithoutPandas:
    """Has the import of pandas fail: PyArrow loads it, where it is there, with the first array it gives to NumPy.

    That takes half a second, and no command uses it.
    """

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        """Raise ModuleNotFoundError for pandas, and leave the others to those who find them."""
        if name == "pandas":
            raise ModuleNotFoundError(name=name)


def main() -> None:
    """Run the command line."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing to put away yet: end without a trace
    sys.meta_path.insert(0, _WithoutPandas())
    from pmrl_cli.cli.main import run

    run()


if __name__ == "__main__":
    main()
