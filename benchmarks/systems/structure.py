"""What each term of structure costs and buys beside infonce: recall at 1, label mAP, neighbours kept of the features.

    PYTHONPATH=. python benchmarks/systems/structure.py SET [SET ...] [--seeds 3] [--steps 600]

60/20/20 by hash of the id, or of the group where rows share an object; adapters with a residual MLP, no dropout, 32
dimensions, no refit. Without a term the same fit, from the same start, without a closed form standing in. Differences
are paired by test instance, over all seeds, with a 95 % bootstrap interval.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from common import GROUPS, interval, load, queries

from pmrl_cli import Aligner

NOTHING = {"geometry": 1e-9}
"""Lets no closed form stand in, and changes nothing."""

VARIANTS = {
    "none": NOTHING,
    "geometry=0.25": {"geometry": 0.25},
    "bridge=3": {"bridge": 3.0},
    "separation=1": {"separation": 1.0},
    "neighbourhood=1": {"neighbourhood": 1.0},
    "neighbourhood=10": {"neighbourhood": 10.0},
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", type=Path, nargs="+")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600)
    asked = parser.parse_args()
    for folder in asked.sets:
        dataset = load(folder)
        measures: dict[str, dict[str, list[np.ndarray]]] = {}
        seconds: dict[str, list[float]] = {}
        for seed in range(asked.seeds):
            for name, terms in VARIANTS.items():
                began = time.process_time()
                aligner = Aligner(
                    objective="infonce",
                    terms=terms,
                    adapter="mlp",
                    dropout=0.0,
                    dim=32,
                    refit=False,
                    steps=asked.steps,
                    seed=seed,
                    validation=0.2,
                    test=0.2,
                    group=GROUPS.get(folder.name),
                ).fit(dataset)
                seconds.setdefault(name, []).append(time.process_time() - began)
                rows, _ = aligner.rows(dataset, "test")
                for measure, values in queries(aligner, dataset, rows, "label").items():
                    measures.setdefault(name, {}).setdefault(measure, []).append(values)
        print(f"{folder.name}, {len(rows)} test instances, {asked.seeds} seeds")
        for name, found in measures.items():
            cells = []
            for measure, parts in found.items():
                mean = np.nanmean(np.concatenate(parts))
                gains = np.concatenate([a - b for a, b in zip(parts, measures["none"][measure], strict=True)])
                change = "" if name == "none" else " {:+.3f} ({:+.3f} to {:+.3f})".format(*interval(gains))
                cells.append(f"{mean:.3f}{change}")
            print(f"| {name} | {' | '.join(cells)} | {np.mean(seconds[name]):.0f} s |", flush=True)


if __name__ == "__main__":
    main()
