"""Runs a fit and an export in less and less memory: each is done, or says in one line that it was too little.

python tests/faults/memory.py [--rows N] [MIB...]     (address space beyond what the process has when it starts)
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.faults import inject, points  # noqa: E402

LADDER = (1024, 512, 256, 128, 64, 32, 16, 8, 4)


def limited(function: Callable[[], int], mebibytes: int) -> Callable[[], int]:
    """Return the function with so much address space beyond what is taken."""

    def within() -> int:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * resource.getpagesize() + mebibytes * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        return function()

    return within


def main() -> int:
    """Climb down the ladder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("ladder", nargs="*", type=int, default=LADDER)
    parser.add_argument("--rows", type=int, default=20_000)
    asked = parser.parse_args()
    points.import_all()
    wrong = 0
    with tempfile.TemporaryDirectory() as name:
        place = Path(name) / "at"
        place.mkdir()
        rng = np.random.default_rng(0)
        for modality, dim in (("a", 256), ("b", 128)):
            np.save(place / f"{modality}.npy", rng.normal(size=(asked.rows, dim)).astype(np.float32))
        commands = {
            "fit": ("fit", "a.npy", "b.npy", *points.QUICK, "-o", "model"),
            "export": ("export", "a.npy", "b.npy", "--model", "model", "-o", "out", "-q"),
        }
        for command, typed in commands.items():
            assert inject.plain(points.act(place, *typed), points.said_in(place)) == 0
            before = points.contents(place / typed[typed.index("-o") + 1])
            for mebibytes in asked.ladder:
                code = inject.plain(limited(points.act(place, *typed), mebibytes), points.said_in(place))
                said = points.said_in(place).read_text(encoding="utf-8", errors="replace")
                fine = code in (0, 5) and len(said.splitlines()) == (code != 0)
                fine = fine and points.contents(place / typed[typed.index("-o") + 1]) == before
                wrong += not fine
                print(f"{command} in {mebibytes} MiB: exit {code} {said.strip()[:160]}{'' if fine else ' WRONG'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
