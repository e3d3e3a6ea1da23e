"""Flips single bits in every file of every output and reads it: each must be found.

    python tests/faults/bits.py [--each N]     (N flips a file: its ends, and offsets at random; default 400)

Prints a line for each kind of output and leaves with 1 if a flip was silent.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from torch import nn  # noqa: E402

from pmrl_cli.aligner import Aligner  # noqa: E402
from pmrl_cli.cli.main import command_line  # noqa: E402
from pmrl_cli.errors import PmrlError  # noqa: E402
from pmrl_cli.files.artifacts.states import read_state  # noqa: E402
from pmrl_cli.files.join.dataset import read_dataset  # noqa: E402
from pmrl_cli.train.checkpoint import Checkpoint  # noqa: E402
from tests.archives.make import make  # noqa: E402

ENDS = 16
"""Bytes at either end of a file that are flipped before any others: magic, lengths, footers."""


def _read(path: Path) -> None:
    read_dataset([str(path)], min_modalities=1)


def _load(folder: Path) -> None:
    Aligner.load(folder, device="cpu")


def _merge(folder: Path) -> None:
    read_state(folder / "state")


def _state(folder: Path, *, save: bool = False) -> None:
    torch.manual_seed(0)
    adapters, objective = nn.Linear(3, 2), nn.Linear(2, 1)
    optimiser = torch.optim.AdamW([*adapters.parameters(), *objective.parameters()])
    checkpoint = Checkpoint(folder, {"setting seed": "0"})
    if save:
        objective(adapters(torch.ones(4, 3))).sum().backward()
        optimiser.step()
        line = {"step": 1, "loss": 0.5}
        state = (adapters, objective, optimiser)
        checkpoint.save(*state, step=1, since=1, sums={"loss": 0.5}, history=[line], best={})
    else:
        assert checkpoint.load(adapters, objective, optimiser) is not None


def outputs(folder: Path) -> dict[str, tuple[Path, Callable[[Path], None]]]:
    """Write an output of every kind; return each with what reads it."""
    make(folder / "made")
    _state(folder / "made" / "checkpoint", save=True)
    states = folder / "made" / "states"
    states.mkdir()
    typed = ["diagnose", str(folder / "made" / "store"), "--model", str(folder / "made" / "model"), "-q"]
    command_line([*typed, "--partial", str(states / "state")], standalone_mode=False)
    readers = {"store": _read, "model": _load, "checkpoint": _state, "states": _merge}
    return {path.name: (path, readers.get(path.name, _read)) for path in sorted((folder / "made").iterdir())}


def refusal(reader: Callable[[Path], None], path: Path) -> str:
    """Return the error with which reading is refused, "" if it is not."""
    try:
        reader(path)
    except PmrlError as error:
        return str(error)
    return ""


def offsets(size: int, each: int, seed: str) -> list[int]:
    """Return which bytes to flip: all, or the ends and others at random."""
    if size <= each:
        return list(range(size))
    ends = [*range(ENDS), *range(size - ENDS, size)]
    inner = random.Random(seed).sample(range(ENDS, size - ENDS), max(0, each - len(ends)))
    return (ends + inner)[:each] if each < len(ends) else ends + inner


def flips(output: Path, reader: Callable[[Path], None], each: int) -> Iterator[str]:
    """Yield for every flip the place where it was silent, "" where it was found."""
    whole = refusal(reader, output)  # an Arrow stream is none of pmrl's inputs, and refused as that
    for file in sorted(path for path in (output, *output.rglob("*")) if path.is_file()):
        good = file.read_bytes()
        name = file.relative_to(output).as_posix()
        for offset in offsets(len(good), each, name):
            bit = (offset * 7 + len(good)) % 8
            bad = bytearray(good)
            bad[offset] ^= 1 << bit
            file.write_bytes(bad)
            found = refusal(reader, output)
            yield "" if found not in ("", whole) else f"{output.name}/{name}: bit {bit} of byte {offset}"
        file.write_bytes(good)
    assert refusal(reader, output) == whole


def main() -> int:
    """Flip, and say what came of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--each", type=int, default=400)
    each = parser.parse_args().each
    flipped = silent = 0
    with tempfile.TemporaryDirectory() as name:
        for kind, (path, reader) in outputs(Path(name)).items():
            found = list(flips(path, reader, each))
            places = [place for place in found if place]
            flipped, silent = flipped + len(found), silent + len(places)
            print(f"{kind}: {len(found)} flips, {len(places)} silent", *places[:5], sep="\n  ", flush=True)
    print(f"in all {flipped} flips, {silent} silent")
    return 1 if silent else 0


if __name__ == "__main__":
    sys.exit(main())
