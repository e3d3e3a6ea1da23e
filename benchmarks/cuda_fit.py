"""A fit of many instances on a GPU, end to end: what it says and when, and what it took.

    python benchmarks/cuda_fit.py [--rows 10_000_000] [--dim 512] [--batch-size 8192] [--folder DIR]

Three modalities of float16 columns that share 32 latent directions are drawn on the GPU and written to npy files.
``pmrl fit`` then reads and checks them, takes the closed form of all, puts their scores on the GPU and trains one
epoch of linear adapters. Allow 2 bytes a number in DIR, as much again in memory and 3 kB an instance for the scores.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from speed import machine, versions

MODALITIES = ("audio", "image", "text")
LATENT = 32
BLOCK = 2**18


def make_features(folder: Path, rows: int, dim: int) -> list[str]:
    """Write one npy file a modality."""
    generator = torch.Generator("cuda").manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device="cuda")

    mixing = normal(len(MODALITIES), LATENT, dim) / LATENT**0.5
    paths = [folder / f"{name}.npy" for name in MODALITIES]
    arrays = [np.lib.format.open_memmap(path, "w+", np.float16, (rows, dim)) for path in paths]
    for start in range(0, rows, BLOCK):
        stop = min(start + BLOCK, rows)
        shared = normal(stop - start, LATENT)
        for array, mix in zip(arrays, mixing, strict=True):
            array[start:stop] = (shared @ mix + normal(stop - start, dim)).half().cpu().numpy()
    return list(map(str, paths))


def main() -> None:
    """Write the features, fit, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=8192)
    parser.add_argument("--folder", type=Path, help="where there is room (default: that for temporary files)")
    options = parser.parse_args()
    print(f"{torch.cuda.get_device_name()}, {machine()}\n{versions()}\n{' '.join(sys.argv)}", flush=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        start = time.perf_counter()
        files = make_features(Path(name), options.rows, options.dim)
        print(f"features written in {time.perf_counter() - start:.1f} s", flush=True)
        torch.cuda.empty_cache()
        steps = int(0.7 * options.rows) // options.batch_size
        fixed = [
            "--adapter",
            "linear",
            "--dropout",
            "0",
            "--no-refit",
            "--patience",
            "99",
            "--dim",
            "128",
            "--device",
            "cuda",
        ]
        sized = ["--batch-size", str(options.batch_size), "--steps", str(steps), "-o", f"{name}/model"]
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "pmrl_cli", "fit", *files, *sized, *fixed], stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        for line in process.stderr:
            print(f"{time.perf_counter() - start:7.1f} s  {line}", end="", flush=True)
        _, status, used = os.wait4(process.pid, 0)
        wall, cpu = time.perf_counter() - start, used.ru_utime + used.ru_stime
        memory = used.ru_maxrss / 2**20
        print(f"exit {os.waitstatus_to_exitcode(status)}: {wall:.1f} s, CPU {cpu:.1f} s, memory {memory:.1f} GiB")


if __name__ == "__main__":
    main()
