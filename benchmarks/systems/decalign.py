"""What decalign calls common and unique on a real set: label probes, and what each says of the features.

    PYTHONPATH=. python benchmarks/systems/decalign.py SET [SET ...] [--seeds 3] [--steps 600] [--without NAME ...]

60/20/20 as in structure.py. Probes are least-squares classifiers on training instances, read on test instances. R2 is
of the first 32 principal components of a modality's standardised features, from a ridge regression on its own vectors
(own) or on the vector of another modality (others), mean over modalities.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from common import GROUPS, arrays_of, load, queries, ridge

from pmrl_cli import Aligner
from pmrl_cli.data.dataset import Dataset

STRENGTH = 1.0
"""Of the ridge regressions, relative to the mean eigenvalue."""

VARIANTS = {
    "infonce": {"objective": "infonce", "terms": {"geometry": 1e-9}},
    "decalign": {"objective": "decalign"},
    "decalign, nothing keeps apart": {"objective": "decalign", "objective_settings": {"decoupling": 0.0}},
}


def probe(seen: np.ndarray, labels: np.ndarray, asked: np.ndarray, truth: np.ndarray) -> float:
    """Return the accuracy of a least-squares classifier."""
    classes = np.unique(labels)
    wanted = (labels[:, None] == classes).astype(float)
    return float(np.mean(classes[ridge(seen, wanted, asked, STRENGTH).argmax(1)] == truth))


def explained(seen: np.ndarray, wanted: np.ndarray, asked: np.ndarray, truth: np.ndarray) -> float:
    """Return R2 on what was not fitted."""
    left = np.square(ridge(seen, wanted, asked, STRENGTH) - truth).sum()
    return float(1 - left / np.square(truth - wanted.mean(0)).sum())


def components(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first 32 principal components of standardised features."""
    middle, spread = train.mean(0), train.std(0).clip(1e-9)
    x, y = (train - middle) / spread, (test - middle) / spread
    _, _, axes = np.linalg.svd(x, full_matrices=False)
    return x @ axes[:32].T, y @ axes[:32].T


def describe(aligner: Aligner, dataset: Dataset, train: np.ndarray, test: np.ndarray) -> dict[str, float]:
    parts: dict[str, list[np.ndarray]] = {}
    for rows in (train, test):
        (block,) = list(aligner.embed(dataset, rows))
        parts.setdefault("common", []).append(block.embeddings.astype(float))
        if "unique" in block.extra:
            parts.setdefault("unique", []).append(block.extra["unique"].astype(float))
    labels = np.array([str(value) for value in dataset.columns["label"].to_pylist()])
    raw = [arrays_of(dataset, rows) for rows in (train, test)]
    found: dict[str, list[float]] = {}
    for m, name in enumerate(dataset.names):
        wanted, truth = components(*(part[name].astype(float) for part in raw))
        for part, (seen, asked) in parts.items():
            found.setdefault(f"{part} probe", []).append(probe(seen[:, m], labels[train], asked[:, m], labels[test]))
            for n in range(len(dataset.names)):
                kind = "own" if n == m else "others"
                found.setdefault(f"{part} R2 {kind}", []).append(explained(seen[:, n], wanted, asked[:, n], truth))
    return {name: float(np.mean(values)) for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", type=Path, nargs="+")
    parser.add_argument("--without", nargs="*", default=[], help="Modalities that are left out.")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600)
    asked = parser.parse_args()
    for folder in asked.sets:
        dataset = load(folder, asked.without)
        tables: dict[str, list[dict[str, float]]] = {}
        for seed in range(asked.seeds):
            for name, settings in VARIANTS.items():
                began = time.process_time()
                aligner = Aligner(
                    **settings,
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
                seconds = time.process_time() - began
                rows = {part: aligner.rows(dataset, part)[0] for part in ("train", "test")}
                rows = {part: at[dataset.present[at].all(axis=1)] for part, at in rows.items()}
                measured = describe(aligner, dataset, rows["train"], rows["test"])
                recall = queries(aligner, dataset, rows["test"], "label")["R@1"].mean()
                tables.setdefault(name, []).append({"R@1": float(recall), **measured, "seconds": seconds})
        print(f"{folder.name}, {len(rows['test'])} complete test instances, {asked.seeds} seeds")
        for name, lines in tables.items():
            means = {key: np.mean([line[key] for line in lines]) for key in lines[0]}
            errors = {key: np.std([line[key] for line in lines], ddof=1) / len(lines) ** 0.5 for key in lines[0]}
            print(
                f"{name}: " + ", ".join(f"{key} {means[key]:.3f} (se {errors[key]:.3f})" for key in means), flush=True
            )


if __name__ == "__main__":
    main()
