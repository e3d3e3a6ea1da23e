"""The real feature sets that the systems are tried on, and what all of them measure on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from pmrl_cli.data.columns import codes_of
from pmrl_cli.data.dataset import Dataset, Features
from pmrl_cli.data.read_options import ReadOptions
from pmrl_cli.files.join.dataset import read_dataset

Array = npt.NDArray[np.float64]

GROUPS = {"cy101": "object", "mosi": "video"}
"""Side columns whose rows are not independent."""


def read_set(folder: Path) -> Dataset:
    """Return the modalities and side columns of a set."""
    return read_dataset(
        [str(path) for path in sorted(folder.glob("*.h5"))], ReadOptions(labels=folder / "labels.parquet")
    )


def rows_of(dataset: Dataset, rows: npt.NDArray[np.int64]) -> Dataset:
    """Return some instances of a set, their features in memory."""
    modalities = tuple(Features(one.name, one.read(rows)) for one in dataset.modalities)
    columns = {name: column.take(rows) for name, column in dataset.columns.items()}
    return Dataset(dataset.ids.take(rows), modalities, dataset.present[rows], columns)


def groups_of(folder: Path, dataset: Dataset) -> npt.NDArray[np.int64]:
    """Return (n,) the independent unit of each instance."""
    column = GROUPS.get(folder.name)
    return np.arange(len(dataset)) if column is None else codes_of(dataset, column)


def interval(values: Array, groups: npt.NDArray[np.int64]) -> tuple[float, float, float]:
    """Return the mean of (n,) values and its 95 % interval, whose groups are redrawn (2,000 draws)."""
    _, index = np.unique(groups, return_inverse=True)
    count = index.max() + 1
    sums, sizes = np.bincount(index, values), np.bincount(index).astype(float)
    draws = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), 2000)
    means = (draws @ sums) / (draws @ sizes)
    return float(values.mean()), *(float(q) for q in np.quantile(means, [0.025, 0.975]))


def text(found: tuple[float, float, float]) -> str:
    """Return a value with its interval, three digits."""
    return f"{found[0]:.3f} ({found[1]:.3f} to {found[2]:.3f})"


def ridge_hits(vectors: Array, classes: npt.NDArray[np.int64], train: Array, test: Array) -> Array:
    """Return 1 where a ridge classifier of the training rows is right on each test row, else 0."""
    centre = vectors[train].mean(0)
    scale = np.sqrt(((vectors[train] - centre) ** 2).mean()) or 1.0
    inputs = np.concatenate([(vectors - centre) / scale, np.ones((len(vectors), 1))], axis=1)
    targets = np.eye(classes.max() + 1)[classes[train]]
    gram = inputs[train].T @ inputs[train] + np.eye(inputs.shape[1])
    weights = np.linalg.solve(gram, inputs[train].T @ targets)
    hits: Array = ((inputs[test] @ weights).argmax(1) == classes[test]).astype(float)
    return hits
