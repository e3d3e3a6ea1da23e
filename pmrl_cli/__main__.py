"""``pmrl`` and ``python -m pmrl_cli``: the start of a command, before any library is loaded."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


class _WithoutPandas(PathFinder):
    """Finds modules but pandas: PyArrow loads it, where it is there, with the first array it gives to NumPy.

    That takes half a second, and no command uses it.
    """

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a module is, None for pandas."""
        return None if fullname == "pandas" else super().find_spec(fullname, path, target)


def main() -> None:
    """Run the command line."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing to put away yet: end without a trace
    sys.meta_path[:] = [_WithoutPandas if one is PathFinder else one for one in sys.meta_path]
    from pmrl_cli.cli.main import run

    run()


if __name__ == "__main__":
    main()
