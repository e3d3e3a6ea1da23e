"""A fit of many instances on a GPU: the closed forms alone, part by part, and all of it, end to end.

    python benchmarks/cuda_fit.py [--rows 10_000_000] [--dim 512] [--batch-size 8192] [--folder DIR] [--device cuda]

Three modalities of float16 columns that share 32 latent directions are drawn on the GPU and written to npy files.
The closed forms of the first tenth are timed on the CPU and on the GPU. ``pmrl fit`` then reads and checks all,
takes their closed form, keeps their scores on the GPU and trains one epoch of linear adapters. Allow 2 bytes a number
in DIR, as much again in memory and 3 kB an instance for the scores. ``--device cpu`` tries it out, with fewer rows.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from speed import machine, versions

from pmrl_cli.closed_form.arithmetic import Arithmetic, arithmetic_on
from pmrl_cli.closed_form.columns import ProjectionFitter
from pmrl_cli.closed_form.gcca import gcca
from pmrl_cli.closed_form.projected import project
from pmrl_cli.closed_form.projection import FeatureMap
from pmrl_cli.data.dataset import Dataset, Features
from pmrl_cli.files.durable.scratch import Scratch

MODALITIES = ("audio", "image", "text")
LATENT = 32
BLOCK = 2**18


def make_features(folder: Path, rows: int, dim: int, device: str) -> list[str]:
    """Write one npy file a modality."""
    generator = torch.Generator(device).manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=device)

    mixing = normal(len(MODALITIES), LATENT, dim) / LATENT**0.5
    paths = [folder / f"{name}.npy" for name in MODALITIES]
    arrays = [np.lib.format.open_memmap(path, "w+", np.float16, (rows, dim)) for path in paths]
    for start in range(0, rows, BLOCK):
        stop = min(start + BLOCK, rows)
        shared = normal(stop - start, LATENT)
        for array, mix in zip(arrays, mixing, strict=True):
            array[start:stop] = (shared @ mix + normal(stop - start, dim)).half().cpu().numpy()
    return list(map(str, paths))


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print the wall and CPU seconds of a block, whose results are on the CPU at its end."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    print(f"  {what}: {time.perf_counter() - wall:.2f} s, CPU {time.process_time() - cpu:.2f} s", flush=True)


def closed_forms(files: Sequence[str], rows: int, arithmetic: Arithmetic) -> None:
    """Print what each part of the closed forms of some rows takes."""
    features = (Features(Path(file).stem, np.load(file, mmap_mode="r")[:rows]) for file in files)
    ids = pa.array(map(str, range(rows)), pa.large_string())
    dataset, everyone = Dataset(ids, tuple(features), np.ones((rows, len(files)), bool)), np.arange(rows)
    dataset.id_hashes(0)
    fitter = ProjectionFitter(dataset, everyone, seed=0, arithmetic=arithmetic)
    with timed("moments of the columns, second moments, principal axes"):
        projections = fitter.fit(FeatureMap("linear", squash=True))
    with timed("projection, cross moments"):
        data = project(dataset, everyone, everyone, projections, cross=True, scratch=Scratch(), arithmetic=arithmetic)
    with timed("GCCA of them"):
        gcca(data.cross, data.variances, ridge=0.1, dim=128)
    with timed("kernels of 1,024 landmarks"):
        projections = fitter.fit(FeatureMap("kernel", squash=True))
    del data
    with timed("projection by them, cross moments"):
        data = project(dataset, everyone, everyone, projections, cross=True, scratch=Scratch(), arithmetic=arithmetic)
    with timed("GCCA of them"):
        gcca(data.cross, data.variances, ridge=0.1, dim=128)


def main() -> None:
    """Write the features, take their closed forms, fit, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=8192)
    parser.add_argument("--folder", type=Path, help="where there is room (default: that for temporary files)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    options = parser.parse_args()
    card = [torch.cuda.get_device_name()] if options.device == "cuda" else []
    print(f"{', '.join([*card, machine()])}\n{versions()}\n{' '.join(sys.argv)}", flush=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        start = time.perf_counter()
        files = make_features(Path(name), options.rows, options.dim, options.device)
        print(f"features written in {time.perf_counter() - start:.1f} s", flush=True)
        for device in dict.fromkeys(("cpu", options.device)):
            print(f"closed forms of {options.rows // 10:,} instances, {device}", flush=True)
            closed_forms(files, options.rows // 10, arithmetic_on(torch.device(device)))
        if options.device == "cuda":
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
            options.device,
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
