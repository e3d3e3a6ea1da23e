"""Nearest neighbours beside a flat index of faiss: processor seconds, memory, and whether both find the same.

    pip install faiss-cpu
    python benchmarks/search.py [--rows 50000] [--dim 256] [--k 10]

Random unit vectors, as many queries as candidates, one thread; each way in a process of its own, whose peak memory is
beyond that of its vectors. A query whose neighbours differ is counted; where two cosines tie but for the rounding of
float32, either order is right.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np

WAYS = ("pmrl", "faiss")


def vectors(rows: int, dim: int, seed: int) -> np.ndarray:
    """Return random unit vectors."""
    drawn = np.random.default_rng(seed).standard_normal((rows, dim), dtype=np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def find(way: str, queries: np.ndarray, gallery: np.ndarray, count: int) -> np.ndarray:
    """Return the rows of the nearest."""
    if way == "pmrl":
        import torch

        from pmrl_cli.retrieval.search import nearest

        held = torch.from_numpy(gallery)
        return nearest(
            torch.from_numpy(queries), (held[i : i + 16384] for i in range(0, len(held), 16384)), count
        ).rows.numpy()
    import faiss

    index = faiss.IndexFlatIP(gallery.shape[1])
    index.add(gallery)
    return index.search(queries, count)[1]


def measure(way: str, rows: int, dim: int, count: int) -> dict[str, object]:
    """Search once for nothing, so that libraries are loaded, then once for the clock."""
    queries, gallery = vectors(rows, dim, 0), vectors(rows, dim, 1)
    find(way, queries[:64], gallery[:64], count)
    before, held = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = find(way, queries, gallery, count)
    used = time.process_time() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": used, "mebibytes": (peak - held) / 1024, "rows": found[:1000].tolist()}


def main() -> None:
    """Print one line for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--only", choices=WAYS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.only:
        print(json.dumps(measure(asked.only, asked.rows, asked.dim, asked.k)))
        return
    found = {}
    for way in WAYS:
        command = [sys.executable, __file__, "--only", way]
        command += ["--rows", str(asked.rows), "--dim", str(asked.dim), "--k", str(asked.k)]
        found[way] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    for way, figures in found.items():
        ratio = figures["seconds"] / found["faiss"]["seconds"]
        print(f"{way:6} {figures['seconds']:7.1f} CPU s ({ratio:.2f}) {figures['mebibytes']:7.0f} MiB")
    differ = sum(a != b for a, b in zip(found["pmrl"]["rows"], found["faiss"]["rows"], strict=True))
    print(f"{differ} of the first {len(found['pmrl']['rows'])} queries have other neighbours or another order")


if __name__ == "__main__":
    main()
