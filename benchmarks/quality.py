"""Held-out retrieval of every method on the feature sets it is pointed at, by one protocol.

    python benchmarks/quality.py SET [SET ...] [--seeds 3] [--methods pmrl,gcca]

A SET is a folder of feature files with a labels.parquet. Instances are dealt 60/20/20 to train, validation and test
by hash of their id, or of their group where rows share an object or a video; every method sees the same. Figures are
means over all ordered pairs of modalities, gallery = test, ties by expected rank; fused = the leading direction of
the other modalities asks. A method is one line of METHODS.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from pmrl_cli import Aligner, evaluate, read_dataset

METHODS: dict[str, dict[str, object]] = {
    "gcca": {"steps": 0, "refit": False},
    "gcca refitted": {"steps": 0},
    "pmrl not refitted": {"refit": False},
    "pmrl": {},
    "pmrl-paper not refitted": {"objective": "pmrl-paper", "refit": False},
    "pmrl-paper": {"objective": "pmrl-paper"},
}

GROUPS = {"cy101": "object", "mosi": "video", "flickr8k_clip": "label"}
"""Side columns whose rows must not be parted, by name of the set's folder; others are dealt row by row."""


def measure(folder: Path, settings: dict[str, object], seed: int) -> dict[str, float]:
    """Fit on train and validation, and return what test says."""
    dataset = read_dataset([str(folder)], join="outer")
    aligner = Aligner(**settings, seed=seed, validation=0.2, test=0.2, group=GROUPS.get(folder.name))
    started = time.perf_counter()
    aligner.fit(dataset)
    seconds = time.perf_counter() - started
    rows, _ = aligner.rows(dataset, "test")
    result = evaluate(aligner.embed_dataset(dataset, rows), bootstrap=0).as_dict()
    fused = result["fused"]
    return {
        "MRR": result["pairwise"]["MRR"]["value"],
        "R@1": result["pairwise"]["R@1"]["value"],
        "fused MRR": fused["MRR"]["value"] if fused else np.nan,
        "seconds": seconds,
    }


def main() -> None:
    """Print one table a set, rows as they are done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", default=",".join(METHODS), help="names separated by commas and no space")
    arguments = parser.parse_args()
    print("| set | method | MRR | R@1 | fused MRR | seconds a fit |\n|---|---|---|---|---|---|")
    for folder in arguments.sets:
        for method in METHODS:
            if method not in arguments.methods.split(","):
                continue
            runs = [measure(folder, METHODS[method], seed) for seed in range(arguments.seeds)]
            mean = {key: float(np.mean([run[key] for run in runs])) for key in runs[0]}
            fused = "" if np.isnan(mean["fused MRR"]) else f"{mean['fused MRR']:.4f}"
            figures = f"{mean['MRR']:.4f} | {mean['R@1']:.4f} | {fused} | {mean['seconds']:.1f}"
            print(f"| {folder.name} | {method} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
