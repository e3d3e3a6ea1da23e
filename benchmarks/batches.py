"""Whether, and how fast, an instance's vectors are the same in batches of any size: for docs/recipes.md.

OMP_NUM_THREADS=1 python benchmarks/batches.py
"""

from __future__ import annotations

import time

import numpy as np
import torch

from pmrl_cli import Aligner

ROWS, SIZES = 1000, (1, 8, 32, 64, 333, 1000)
DIMS = {"image": 96, "sound": 40, "text": 64}


def main() -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(ROWS, 12))
    features = {
        name: (np.tanh(latent @ rng.normal(size=(12, dim))) + 0.1 * rng.normal(size=(ROWS, dim))).astype(np.float32)
        for name, dim in DIMS.items()
    }
    for vectors in features.values():
        vectors[rng.random(ROWS) < 0.2] = np.nan
    for adapter in ("linear", "kernel"):
        aligner = Aligner(seed=0, steps=1, dim=32, device="cpu", objective="infonce", adapter=adapter).fit(features)
        whole = np.nan_to_num(np.stack(list(aligner.transform(features).values())))
        for size in SIZES:
            start = time.process_time()
            parts = [
                np.stack(list(aligner.transform({name: x[at : at + size] for name, x in features.items()}).values()))
                for at in range(0, ROWS, size)
            ]
            spent = (time.process_time() - start) / ROWS
            found = np.nan_to_num(np.concatenate(parts, axis=1))
            apart = np.abs(found - whole)
            print(
                f"{adapter:6} batches of {size:4}: {spent * 1e6:4.0f} us of CPU a row, largest "
                f"difference {apart.max():.0e}, {np.any(apart > 0, axis=(0, 2)).sum()} of {ROWS} instances differ",
                flush=True,
            )


if __name__ == "__main__":
    main()
