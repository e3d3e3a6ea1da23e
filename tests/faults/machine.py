"""A stateful machine: fit, kill, resume, export, corrupt and repair in any order that Hypothesis thinks of.

    python tests/faults/machine.py [--examples N] [--steps N]

After every step each output is, to the byte, absent, the one before, or the one that was asked for; what is damaged
is refused and what is repaired is whole. Leaves with 1 and the shortest story found if one of them is not.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from hypothesis import HealthCheck, Phase, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test  # noqa: E402

from tests.faults import inject, points  # noqa: E402
from tests.forked_readers import fork_readers  # noqa: E402

SEEDS = ("0", "1")
KINDS = ("parquet", "npy")
CALLS = 350
"""About as many write-type calls as a fit makes; a kill later than the last call is none."""

base = Path()


def typed_fit(seed: str) -> tuple[str, ...]:
    return ("fit", "store", *points.QUICK, "--seed", seed, "-o", "model")


def typed_export(kind: str) -> tuple[str, ...]:
    return ("export", "store", "--model", "model", "--format", kind, "-o", "out", "-q")


@cache
def reference(seed: str, kind: str = "") -> dict[str, bytes]:
    """Return the model of a seed, or the export made with it, by runs that nothing befell."""
    place = base / f"reference-{seed}-{kind}"
    shutil.copytree(base / "inputs", place)
    shutil.rmtree(place / "model")
    for typed in (typed_fit(seed), *([typed_export(kind)] if kind else [])):
        assert inject.plain(points.act(place, *typed), points.said_in(place)) == 0
    found = points.contents(place / ("out" if kind else "model"))
    assert found is not None
    return found


class Outputs(RuleBasedStateMachine):
    """A folder with a model and an export, and what they may be by now."""

    def __init__(self) -> None:
        super().__init__()
        self.place = base / "machine"
        shutil.rmtree(self.place, ignore_errors=True)
        shutil.copytree(base / "inputs", self.place)
        shutil.rmtree(self.place / "model")
        self.model: str | None = None
        self.out: tuple[str, str] | None = None
        self.unfinished: str | None = None
        self.damaged = {"model": False, "out": False, "unfinished": False}

    def do(self, *typed: str, kill: int | None = None) -> int | None:
        """Run a command, killed at a call or not; return its exit code."""
        self.said = points.said_in(self.place)
        if kill is None:
            return inject.plain(points.act(self.place, *typed), self.said)
        return inject.run(points.act(self.place, *typed), self.said, at=kill).code

    def now(self, name: str) -> dict[str, bytes] | None:
        return points.contents(self.place / name)

    @rule(seed=st.sampled_from(SEEDS), kill=st.none() | st.integers(1, CALLS), restart=st.booleans())
    def fit(self, seed: str, kill: int | None, restart: bool) -> None:  # noqa: FBT001 - drawn
        """Fit, or go on with a fit; a model that is damaged is replaced by force."""
        states = list((self.place / "model.unfinished").glob("*/checkpoint.json"))
        words = [word for word, wanted in (("--restart", restart), ("--force", self.damaged["model"])) if wanted]
        code = self.do(*typed_fit(seed), *words, kill=kill)
        said = self.said.read_text(encoding="utf-8")
        if code == 7:  # an unfinished fit of another seed, or a damaged one
            assert states, said
            assert not restart, said
            assert self.unfinished != seed or self.damaged["unfinished"], said
            assert "--restart" in said
        elif code == 0:
            self.model, self.unfinished = seed, None
            self.damaged["model"] = self.damaged["unfinished"] = False
            assert self.now("model") == reference(seed)
            assert not (self.place / "model.unfinished").exists()
        else:
            assert (code, kill is not None) == (-9, True), said
            if self.now("model") == reference(seed):
                self.model, self.damaged["model"] = seed, False
            if restart or not states:
                self.unfinished, self.damaged["unfinished"] = seed, False

    @rule(kind=st.sampled_from(KINDS), kill=st.none() | st.integers(1, 60))
    def export(self, kind: str, kill: int | None) -> None:
        """Export with the model, if there is one that is whole."""
        code = self.do(*typed_export(kind), *(["--force"] if self.damaged["out"] else []), kill=kill)
        said = self.said.read_text(encoding="utf-8")
        if self.model is None:
            assert code == 3 or kill, said
        elif self.damaged["model"]:
            assert code in (3, 7) or kill, said
        else:
            assert code == 0 or (code, kill is not None) == (-9, True), said
            if self.now("out") == reference(self.model, kind):
                self.out, self.damaged["out"] = (self.model, kind), False
            assert code != 0 or self.out == (self.model, kind)

    @precondition(lambda self: self.model is not None or self.unfinished is not None or self.out is not None)
    @rule(number=st.integers(0, 2**20), at=st.integers(0, 2**30), bit=st.integers(0, 7))
    def corrupt(self, number: int, at: int, bit: int) -> None:
        """Flip a bit of a file of an output that is whole.

        Numbers are drawn from fixed ranges and taken modulo: hypothesis runs an example again and must draw from the
        same ranges, though a file that says how long something took may be a byte longer or shorter then.
        """
        whole = [name for name, damaged in self.damaged.items() if not damaged]
        folders = {"model": "model", "out": "out", "unfinished": "model.unfinished"}
        files = [
            (name, path)
            for name in whole
            for path in sorted((self.place / folders[name]).rglob("*"))
            if path.is_file() and path.name != "lock" and ".writing" not in path.parent.name and path.stat().st_size
        ]
        if files:
            name, path = files[number % len(files)]
            content = bytearray(path.read_bytes())
            content[at % len(content)] ^= 1 << bit
            path.write_bytes(content)
            self.damaged[name] = True

    @invariant()
    def outputs_are_whole(self) -> None:
        """Check that every undamaged output is one of those it may be."""
        if not self.damaged["model"]:
            assert self.now("model") == (None if self.model is None else reference(self.model))
        if not self.damaged["out"]:
            assert self.now("out") == (None if self.out is None else reference(*self.out))
        for name in ("store", "left.npy"):
            one, other = base / "inputs" / name, self.place / name
            assert points.contents(one) == points.contents(other)
        known = {path.name for path in (base / "inputs").iterdir()} | {"out", "model.unfinished"}
        assert {path.name for path in self.place.iterdir()} <= known | {".model.writing", ".out.writing"}


def main() -> int:
    """Run the machine."""
    global base
    parser = argparse.ArgumentParser()
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--steps", type=int, default=12)
    asked = parser.parse_args()
    points.import_all()
    fork_readers()
    memory = Path("/dev/shm")  # where fsync costs nothing
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        base = Path(name)
        points.make_inputs(base / "inputs")
        run_state_machine_as_test(
            Outputs,
            settings=settings(
                max_examples=asked.examples,
                stateful_step_count=asked.steps,
                deadline=None,
                derandomize=True,
                database=None,
                print_blob=False,
                phases=(Phase.generate, Phase.shrink),
                suppress_health_check=list(HealthCheck),
            ),
        )
    print(f"{asked.examples} stories of at most {asked.steps} steps: every output whole, every damage found")
    return 0


if __name__ == "__main__":
    sys.exit(main())
