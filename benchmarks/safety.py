"""What the checks cost an ordinary fit: the same fit with and without them, in turn.

    python benchmarks/safety.py [--pairs N]

Without: files are read in the same process and unchecked, no digest is computed or compared, nothing is flushed to
disk, no gradient or weight is checked. Prints the
CPU seconds of whole commands (user and system, children included), median over the pairs, and their ratio.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]

WITHOUT = """
import pmrl_cli.cli.main  # first, as without this: it sets what the libraries read when they are loaded
import torch
from pmrl_cli.files.durable import atomic, checksums
from pmrl_cli.files.formats import probe, sandbox_client, store
from pmrl_cli.files.artifacts import model
from pmrl_cli.train import checkpoint
def nothing(*_, **__): return None
sandbox_client.start = probe.refuse_pickle = nothing
probe.unchanging = lambda path, before, contents, members=(): contents
sandbox_client.probe = lambda form, path, options: form.probe(path, options)
atomic._sync = nothing
checksums.check_files = store.check_files = probe.check_listed = nothing
for module in (checksums, model, checkpoint):
    module.check_bytes = lambda path, _: path.read_bytes()
    module.digests = lambda *_, **__: {}
    module.sha256_of = lambda _: ""
torch.nn.utils.get_total_norm = lambda _: torch.zeros(())
torch.isfinite = lambda tensor: torch.ones((), dtype=torch.bool)
"""
RUN = "import sys\nfrom pmrl_cli.cli.main import run\nsys.argv = ['pmrl', *sys.argv[1:]]\nrun()\n"


def seconds(code: str, *typed: str, cwd: str) -> float:
    """Return the CPU seconds of a command."""
    before = os.times()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code, *typed], cwd=cwd, env=environment, check=True, capture_output=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=5)
    pairs = parser.parse_args().pairs
    features = [str(path) for path in sorted((ROOT / "sample_data" / "features").iterdir())]
    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        latent = rng.normal(size=(50_000, 16)).astype(np.float32)
        for name in ("a", "b"):
            noise = rng.normal(size=(50_000, 512)).astype(np.float32)
            np.save(Path(folder) / f"{name}.npy", latent @ rng.normal(size=(16, 512)).astype(np.float32) + noise)
        ingest = ("ingest", "a.npy", "b.npy", "-o", "store", "-q")
        one = ("--dropout", "0", "--no-refit", "--threads", "1")  # a single run: what the checks cost weighs more
        cases = {
            "fit sample_data --steps 200": ("fit", *features, "--steps", "200", *one, "-o", "small", "-q"),
            "fit a store of 50,000 x 2 x 512 --steps 200": (
                "fit",
                "store",
                "--steps",
                "200",
                *one,
                "-o",
                "large",
                "-q",
            ),
        }
        seconds(RUN, *ingest, cwd=folder)
        print("| command | with, CPU s | without, CPU s | ratio |\n|---|---|---|---|")
        for title, typed in cases.items():
            timed = [
                (seconds(RUN, *typed, cwd=folder), seconds(WITHOUT + RUN, *typed, cwd=folder)) for _ in range(pairs)
            ]
            on, off = (statistics.median(column) for column in zip(*timed, strict=True))
            ratio = statistics.median(a / b for a, b in timed)
            print(f"| {title} | {on:.2f} | {off:.2f} | {ratio:.3f} |", flush=True)


if __name__ == "__main__":
    main()
