"""Kills and fails every command that writes at every one of its write-type system calls.

    python tests/faults/points.py [--sample N] [COMMAND...]     (all points without --sample)

Prints a line for each command and leaves with 1 if any output was torn or lost, or an error was not reported as one.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import json
import os
import pkgutil
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import pmrl_cli  # noqa: E402
from tests.faults import inject  # noqa: E402
from tests.forked_readers import fork_readers  # noqa: E402

ERRORS = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS)
MADE = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d UTC")
"""When a page was made, which it says."""
QUICK = ("--steps", "2", "--dropout", "0", "--no-refit", "--threads", "1", "-q")
"""A fit of two members, so that a run is trained after another."""

EXPORTS = ("parquet", "h5", "npy", "arrow")
LEFT_OUT = (
    "pmrl_cli.__main__",
    "pmrl_cli.report.",
    "pmrl_cli.files.artifacts.writers.faiss",
    "pmrl_cli.files.artifacts.writers.lance",
    "pmrl_cli.files.formats.lance",
    "pmrl_cli.files.formats.zarr",
)
"""Modules of figures, and of libraries that are extras."""
TABLES = ("partial", "per-instance", "suspects", "report")
COMMANDS = (
    "ingest",
    "fit",
    *(f"export-{kind}" for kind in EXPORTS),
    *(f"diagnose-{name}" for name in TABLES),
    "merge",
    "search",
)

Contents = dict[str, bytes] | None


def arguments(command: str, *, new: bool) -> tuple[str, ...]:
    """Return what is typed; the old output is that of other arguments."""
    if command == "ingest":
        return (
            "ingest",
            "left.npy",
            "right.npy",
            *(("--join", "inner") if new else ("third.npy",)),
            "-o",
            "out",
            "-q",
        )
    if command == "fit":
        return ("fit", "store", *QUICK, "--seed", str(int(new)), "-o", "out")
    if command == "search":
        sides = ("search", "store", "--gallery", "store", "--model", "model")
        return (*sides, "-k", "2" if new else "1", "-o", "out", "-q")
    if command == "merge":
        return ("merge", *(("train", "validation") if new else ("train",)), "-o", "out")
    if command.startswith("diagnose-"):
        flag = f"--{command.removeprefix('diagnose-')}"
        return ("diagnose", "store", "--model", "model", "--split", "all" if new else "train", flag, "out", "-q")
    dtype = "float32" if new else "float16"
    kind = command.removeprefix("export-")
    return ("export", "store", "--model", "model", "--format", kind, "--dtype", dtype, "-o", "out", "-q")


def act(folder: Path, *typed: str) -> Callable[[], int]:
    """Return a function that runs a command in a folder."""

    def function() -> int:
        os.chdir(folder)
        sys.argv = ["pmrl", *typed]
        from pmrl_cli.cli.main import run
        from pmrl_cli.train import loop

        loop.CHECKPOINT_SECONDS = -1.0  # a state after each step
        try:
            run()
        except SystemExit as leave:
            return leave.code if isinstance(leave.code, int) else 0
        return 70

    return function


def said_in(folder: Path) -> Path:
    """Return the file that takes what a command says in a folder."""
    return Path(f"{folder}.said")


def contents(folder: Path) -> Contents:
    """Return every byte of an output that is the same each time, None if there is none."""
    if not folder.exists():
        return None
    if folder.is_file():
        return {".": MADE.sub(b"", folder.read_bytes())}
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: b"" if name == "run.json" else path.read_bytes() for name, path in files.items()}


def make(name: str, inputs: Path, folder: Path, *, new: bool) -> Path:
    """Return what a command leaves whose output is not there yet."""
    output = folder / f"{name} {'new' if new else 'old'}"
    if (
        name == "diagnose-suspects" and not new
    ):  # there are none in so little data, so the list before is not from a run
        output.write_text("id,modality,score,probability\nx,left,1,1\n", encoding="utf-8")
        return output
    place = folder / "at"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(inputs, place)
    code = inject.plain(act(place, *arguments(name, new=new)), said_in(place))
    assert code == 0, said_in(place).read_text(encoding="utf-8")
    return (place / "out").rename(output)


class Command:
    """One command, its inputs, what it leaves, and what it left before with other arguments, if it did."""

    def __init__(self, name: str, inputs: Path, folder: Path, before: Path | None, after: Path) -> None:
        self.name, self.inputs, self.folder, self.before = name, inputs, folder, before
        self.over = before is not None
        self.old, self.new = contents(before) if before else None, contents(after)
        self.listed = {path.name for path in inputs.iterdir()} | {"out"}
        assert self.new is not None
        assert self.new != self.old

    def place(self) -> Path:
        """Return a fresh folder with the inputs and, if any, the old output."""
        place = self.folder / "at"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.inputs, place)
        if self.before:
            (shutil.copytree if self.before.is_dir() else shutil.copyfile)(self.before, place / "out")
        return place

    def points(self) -> list[str]:
        """Return its write-type calls when nothing goes wrong."""
        place = self.place()
        return inject.run(act(place, *arguments(self.name, new=True)), said_in(place)).calls

    def faults(self, at: int) -> list[tuple[int | None, bool]]:
        """Return what is done to a call: a kill, one error, and a disk that stays full (error, whether it lasts)."""
        return [(None, False), (ERRORS[at % len(ERRORS)], False), (errno.ENOSPC, True)]

    def meet(self, at: int, error: int | None, *, lasting: bool, found: Counter[str]) -> Iterator[str]:
        """Do one of them to one call; yield what is wrong afterwards."""
        place = self.place()
        typed = act(place, *arguments(self.name, new=True))
        met = inject.run(typed, said_in(place), at=at, error=error, lasting=lasting)
        fault = "kill" if error is None else errno.errorcode[error] + (" for good" if lasting else "")
        where = f"{self.name} {'over old' if self.over else 'anew'}, {fault} at {at} ({met.hit})"
        out = contents(place / "out")
        said = said_in(place).read_text(encoding="utf-8", errors="replace")
        found["tried"] += 1
        if out is None and self.over:
            found["lost"] += 1
            yield f"{where}: lost"
        elif out not in (self.old, self.new):
            found["torn"] += 1
            yield f"{where}: torn, or old where it should be new"
        if met.code == 0:
            found["went on"] += 1
            if out != self.new:
                yield f"{where}: said done, but the output is not the new one"
        elif error is not None:
            found["refused"] += 1
            if met.code != 5 or not said.startswith("error: ") or len(said.splitlines()) != 1:
                yield f"{where}: exit {met.code}, {said[-300:]!r}"
            if out != self.old:
                yield f"{where}: failed, but the output is not as it was"
            left = {path.name for path in place.iterdir()} - self.listed - {"out.unfinished"}
            if left and met.hit not in inject.REMOVING.values():
                yield f"{where}: left {', '.join(left)}"
        again = inject.plain(typed, said_in(place))
        if again != 0 or contents(place / "out") != self.new:
            yield f"{where}: then exit {again}, {said_in(place).read_text(encoding='utf-8')[-300:]!r}"
        if {path.name for path in place.iterdir()} != self.listed:
            yield f"{where}: then left {', '.join(path.name for path in place.iterdir())}"
        for path in self.inputs.rglob("*"):
            if path.is_file() and path.read_bytes() != (place / path.relative_to(self.inputs)).read_bytes():
                yield f"{where}: changed its input {path.name}"


def make_inputs(folder: Path) -> None:
    """Write features, a store of them and a model."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(40, 3))
    for name, dim in (("left", 4), ("right", 3), ("third", 2)):
        vectors = latent @ rng.normal(size=(3, dim)) + 0.1 * rng.normal(size=(40, dim))
        np.save(folder / f"{name}.npy", vectors.astype(np.float32))
    for typed in (
        ("ingest", "left.npy", "right.npy", "-o", "store", "-q"),
        ("fit", "store", *QUICK, "-o", "model"),
        *(
            ("diagnose", "store", "--model", "model", "--split", part, "--partial", part, "-q")
            for part in ("train", "validation")
        ),
    ):
        code = inject.plain(act(folder, *typed), said_in(folder))
        assert code == 0, said_in(folder).read_text(encoding="utf-8")


def import_all() -> None:
    """Import what commands import, or each fork would."""
    for module in pkgutil.walk_packages(pmrl_cli.__path__, "pmrl_cli."):
        if not module.name.startswith(LEFT_OUT):
            importlib.import_module(module.name)
    for name in (
        "typer._adapters",
        "pandas",
    ):  # imported when they are needed, the latter by PyArrow where it is there
        with suppress(ImportError):
            importlib.import_module(name)


def main() -> int:
    """Try the points and say what came of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("commands", nargs="*", default=COMMANDS)
    parser.add_argument("--sample", type=int, help="of each command, drawn at random, and a kill as it is named")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    import_all()
    fork_readers()
    results, wrong = {}, []
    memory = Path("/dev/shm")  # where fsync costs nothing
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        folder = Path(name)
        make_inputs(folder / "inputs")
        for command in asked.commands:
            old, new = (make(command, folder / "inputs", folder, new=which) for which in (False, True))
            for before in (old, None):
                started = time.monotonic()
                scenario = Command(command, folder / "inputs", folder, before, new)
                calls = scenario.points()
                met = [(at, *fault) for at in range(1, len(calls) + 1) for fault in scenario.faults(at)]
                if asked.sample is not None:
                    naming = max(at for at, name in enumerate(calls, 1) if name in inject.RENAMING.values())
                    drawn = random.Random(f"{asked.seed} {command} {scenario.over}").sample(
                        met, min(asked.sample, len(met))
                    )
                    met = [*drawn, (naming, None, False)]
                found: Counter[str] = Counter(tried=0, torn=0, lost=0, refused=0)
                for at, error, lasting in met:
                    for fault in scenario.meet(at, error, lasting=lasting, found=found):
                        wrong.append(fault)
                        print(fault, file=sys.stderr, flush=True)
                title = f"{command} {'over old' if before else 'anew'}"
                counts = {"calls": len(calls), **found}
                results[title] = {**counts, "order": calls}
                if not asked.json:
                    seconds = time.monotonic() - started
                    print(title, *(f"{k} {v}" for k, v in counts.items()), f"{seconds:.0f} s", flush=True)
    if asked.json:
        print(json.dumps({"results": results, "wrong": wrong}))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
