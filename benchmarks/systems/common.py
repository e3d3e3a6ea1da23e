"""What the benchmarks of the systems share: real sets, probes, retrieval by instance, paired intervals."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy and torch read it

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pmrl_cli import Aligner, read_dataset
from pmrl_cli.data.dataset import Dataset

__all__ = ["GROUPS", "arrays_of", "interval", "load", "neighbours", "queries", "ridge", "unit"]

GROUPS = {"cy101": "object", "mosi": "video", "flickr8k_clip": "label"}
"""Side columns whose rows must not be parted, by name of the set's folder."""

DRAWS = 2000

Array = npt.NDArray[np.float64]


def load(folder: Path, without: Sequence[str] = ()) -> Dataset:
    """Read the features of a set, but for some of its modalities, and its side table."""
    files = sorted(str(path) for path in folder.glob("*.h5") if path.stem not in without)
    return read_dataset(files, labels=folder / "labels.parquet", join="outer")


def arrays_of(dataset: Dataset, rows: npt.NDArray[np.int64] | None = None) -> dict[str, npt.NDArray[np.float32]]:
    """Return the features of each modality, NaN where missing."""
    chosen = np.arange(len(dataset)) if rows is None else rows
    found = {}
    for m, features in enumerate(dataset.modalities):
        values = np.array(features.read(chosen), dtype=np.float32)
        values[~dataset.present[chosen, m]] = np.nan
        found[features.name] = values
    return found


def unit(vectors: Array) -> Array:
    """Return vectors of length 1."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)


def queries(aligner: Aligner, dataset: Dataset, rows: npt.NDArray[np.int64], label: str) -> dict[str, Array]:
    """Return for each instance recall at 1, average precision of its label, and neighbours kept (10 nearest).

    Means over ordered pairs of modalities (neighbours: over modalities), the gallery being all given rows.
    """
    blocks = list(aligner.embed(dataset, rows))
    vectors = np.concatenate([block.embeddings for block in blocks]).astype(np.float64)
    present = np.concatenate([block.present for block in blocks])
    labels = np.array([str(value) for value in dataset.columns[label].take(rows).to_pylist()])
    recall, precision, kept = (np.full((len(rows), 0), np.nan) for _ in range(3))
    raw = arrays_of(dataset, rows)
    for m, name in enumerate(dataset.names):
        own = np.flatnonzero(present[:, m])
        overlap = np.full(len(rows), np.nan)
        overlap[own] = neighbours(raw[name][own], vectors[own, m])
        kept = np.column_stack([kept, overlap])
        for n in range(len(dataset.names)):
            if m == n:
                continue
            both = np.flatnonzero(present[:, m] & present[:, n])
            scores = vectors[both, m] @ vectors[both, n].T
            one, other = np.full(len(rows), np.nan), np.full(len(rows), np.nan)
            one[both] = scores.argmax(1) == np.arange(len(both))
            order = np.argsort(-scores, axis=1)
            right = labels[both][order] == labels[both][:, None]
            hits = right.cumsum(1) / np.arange(1, len(both) + 1)
            other[both] = (hits * right).sum(1) / right.sum(1)
            recall, precision = np.column_stack([recall, one]), np.column_stack([precision, other])
    return {name: np.nanmean(part, axis=1) for name, part in (("R@1", recall), ("mAP", precision), ("kept", kept))}


def neighbours(raw: Array, vectors: Array, k: int = 10) -> Array:
    """Return the share of the k nearest (cosine, columns of the raw features standardised) that both have."""
    standard = np.asarray(raw, dtype=np.float64)
    standard = (standard - standard.mean(0)) / standard.std(0).clip(1e-9)
    sets = []
    for x in (standard, vectors):
        scores = unit(x) @ unit(x).T
        np.fill_diagonal(scores, -np.inf)
        sets.append(np.argsort(-scores, axis=1)[:, :k])
    return np.array([len(set(a) & set(b)) / k for a, b in zip(*sets, strict=True)])


def ridge(seen: Array, wanted: Array, asked: Array, strength: float) -> Array:
    """Return what a ridge regression with an intercept, fitted on standardised columns, predicts."""
    middle, spread = seen.mean(0), seen.std(0).clip(1e-9)
    x, y = (seen - middle) / spread, (asked - middle) / spread
    kernel = x @ x.T
    weights = np.linalg.solve(kernel + strength * np.trace(kernel) / len(x) * np.eye(len(x)), wanted - wanted.mean(0))
    return y @ x.T @ weights + wanted.mean(0)


def interval(values: Array, seed: int = 0) -> tuple[float, float, float]:
    """Return the mean of values by instance and its 95 % bootstrap interval."""
    values = values[np.isfinite(values)]
    generator = np.random.default_rng(seed)
    means = [values[generator.integers(0, len(values), len(values))].mean() for _ in range(DRAWS)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)
