"""Rows of the start of a command: what a shell waits for before any work is done."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from rows import Row, Run, child_seconds, in_turn, row_of

ROOT = Path(__file__).parents[1]


def startup_rows(run: Run) -> Iterator[Row]:
    """Yield ``pmrl --help`` and ``pmrl inspect`` of three small files in processes of their own."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{name}.npy" for name in ("audio", "image", "text")]
        for path in files:
            np.save(path, np.ones((100, 8), np.float32))
        python = {
            "floor": partial(_ended, [sys.executable, "-c", "pass"]),
            "import numpy": partial(_ended, [sys.executable, "-c", "import numpy"]),
        }
        for name, arguments in (
            ("pmrl --help", ["--help"]),
            ("pmrl inspect, 3 files", ["inspect", "-q", *map(str, files)]),
        ):
            ours = partial(_ended, [sys.executable, "-m", "pmrl_cli", *arguments])
            found = in_turn({"ours": ours, **python}, repeats=3 if run.quick else 10, timer=child_seconds)
            yield row_of(name, found)


def _ended(command: Sequence[str]) -> None:
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
