"""What each command costs as instances grow: wall and CPU seconds, and the largest resident memory.

    python benchmarks/scale.py [--rows 100_000 300_000 ...] [--folder DIR] [--default-fit] [--dry-run]

Three modalities of 256 float16 columns that share 32 latent directions, with ids, are written to HDF5 block by block.
Each command runs alone, in its own process, and is waited for with its resources: CPU seconds with those of its
children, memory the largest of any one process. ``fit`` takes the moments and the bank of all instances and a fixed
number of steps; with --default-fit a fit is as long as it takes, and nothing follows it. The slope is that of log
seconds (or bytes) over log instances by least squares: 1 is proportional. Everything is written to DIR and removed;
allow 5 kB an instance. docs/speed.md gets the table, unless dry.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from speed import DOCS, machine, versions, written

MODALITIES = ("audio", "image", "text")
DIM, LATENT = 256, 32
STEPS = 60
BLOCK = 65_536


class Cost(NamedTuple):
    """What one command took.

    Args:
        wall: seconds.
        cpu: seconds of it and its children.
        memory: bytes, the largest resident size of any one process.
    """

    wall: float
    cpu: float
    memory: int


def make_features(folder: Path, rows: int) -> list[Path]:
    """Write one HDF5 file a modality, in memory for one block of instances."""
    mixing = np.random.default_rng(0).standard_normal((len(MODALITIES), LATENT, DIM), dtype=np.float32)
    paths = [folder / f"{name}.h5" for name in MODALITIES]
    files = [h5py.File(path, "w") for path in paths]
    for file in files:
        file.create_dataset("features", (rows, DIM), np.float16)
        file.create_dataset("ids", (rows,), "S10")
    for start in range(0, rows, BLOCK):
        generator = np.random.default_rng([1, start])
        stop = min(start + BLOCK, rows)
        shared = generator.standard_normal((stop - start, LATENT), dtype=np.float32)
        ids = np.char.mod("i%09d", np.arange(start, stop)).astype("S10")
        for file, mix in zip(files, mixing, strict=True):
            noise = generator.standard_normal((stop - start, DIM), dtype=np.float32)
            file["features"][start:stop] = (shared @ mix / LATENT**0.5 + noise).astype(np.float16)
            file["ids"][start:stop] = ids
    for file in files:
        file.close()
    return paths


def commands(folder: Path, rows: int, *, default: bool) -> Iterator[tuple[str, list[str]]]:
    """Yield the commands, in their order; what one wrote the next reads.

    Args:
        folder: where they write.
        rows: instances.
        default: only ingest, and a fit without any option.
    """
    files = [str(path) for path in make_features(folder, rows)]
    store, model, output = (str(folder / name) for name in ("store", "model", "output"))
    yield "ingest", ["ingest", *files, "-o", store]
    for path in files:
        Path(path).unlink()
    if default:
        yield "default fit", ["fit", store, "-o", model]
        return
    fixed = ["--adapter", "linear", "--dropout", "0", "--dim", "128", "--no-refit", "--patience", str(STEPS)]
    yield "fit", ["fit", store, "-o", model, "--steps", str(STEPS), *fixed]
    yield "diagnose", ["diagnose", store, "--model", model]
    yield "export", ["export", store, "--model", model, "-o", output, "--dtype", "float16"]


def cost_of(arguments: list[str]) -> Cost:
    """Run a command to its end and return what it took.

    Raises: SystemExit if it fails.
    """
    start = time.perf_counter()
    with subprocess.Popen([sys.executable, "-m", "pmrl_cli", *arguments, "-q"], stdout=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"pmrl {arguments[0]} left with {process.returncode}, expected 0.")
    return Cost(time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)


def curve(costs: dict[tuple[str, int], Cost]) -> str:
    """Return the table: a line for each command and size, then its slopes."""
    lines = ["| command | instances | wall | CPU | memory |", "| --- | --: | --: | --: | --: |"]
    for command in dict.fromkeys(name for name, _ in costs):
        found = {rows: cost for (name, rows), cost in costs.items() if name == command}
        for rows, cost in found.items():
            memory = f"{cost.memory / 2**20:,.0f} MiB"
            lines.append(f"| {command} | {rows:,} | {cost.wall:.1f} s | {cost.cpu:.1f} s | {memory} |")
        if len(found) > 1:
            sizes = np.log(list(found))
            slopes = [np.polyfit(sizes, np.log(values), 1)[0] for values in zip(*found.values(), strict=True)]
            lines.append(f"| {command} | slope | {slopes[0]:.2f} | {slopes[1]:.2f} | {slopes[2]:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Run every command at every size, print, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 300_000, 1_000_000, 3_000_000, 10_000_000])
    parser.add_argument("--folder", type=Path, help="where there is room (default: that for temporary files)")
    parser.add_argument("--default-fit", action="store_true", help="only ingest, and a fit without any option")
    parser.add_argument("--dry-run", action="store_true", help="only print")
    options = parser.parse_args()
    shown = " ".join(["python", "benchmarks/scale.py", *sys.argv[1:]])
    print(f"{machine()}\n{versions()}\n{shown}", flush=True)
    costs: dict[tuple[str, int], Cost] = {}
    for rows in options.rows:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            for name, arguments in commands(Path(folder), rows, default=options.default_fit):
                costs[name, rows] = cost_of(arguments)
                print(f"{name:8} {rows:>12,} {costs[name, rows]}", flush=True)
    table = curve(costs)
    print(f"\n{table}")
    if not options.dry_run and not options.default_fit:
        content = f"    {shown}\n\n{machine()};\n{versions()};\n{STEPS} steps of fit.\n\n{table}"
        DOCS.write_text(written(DOCS.read_text(encoding="utf-8"), "scale", content), encoding="utf-8")


if __name__ == "__main__":
    main()
