"""Which instances of a data set a model has seen, and on which it is evaluated."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pmrl_cli.data.dataset import Dataset
from pmrl_cli.data.leaks import VECTORS, Leaks, find_leaks, trained_vectors
from pmrl_cli.data.repeats import hashes_of
from pmrl_cli.errors import DataError, check_known
from pmrl_cli.model.fitted import FittedModel

__all__ = ["SPLITS", "evaluated_rows", "leaks_of"]

SPLITS = {
    "auto": "test if there are two or more, else validation, else train",
    "train": "instances the adapters trained on",
    "validation": "validation instances: they chose the settings, so a little optimistic",
    "test": "instances that fit never saw",
    "all": "all instances, those the adapters trained on among them",
}
"""Parts of a data set, and what their instances are to a model."""


def evaluated_rows(model: FittedModel, dataset: Dataset, split: str) -> tuple[npt.NDArray[np.int64], str]:
    """Return which instances of a data set to evaluate a model on, and a sentence for them; see ``Aligner.rows``."""
    check_known("split", split, SPLITS)
    train, validation = (dataset.known_among(model.seen[part]) for part in ("train", "validation"))
    validation &= ~train
    parts = {
        "train": train,
        "validation": validation,
        "test": ~(train | validation),
        "all": np.ones(len(dataset), dtype=bool),
    }
    chosen = split
    if split == "auto":
        chosen = "test" if parts["test"].sum() >= 2 else "validation" if validation.any() else "train"
    rows = np.flatnonzero(parts[chosen])
    if len(rows) == 0:
        raise DataError(
            what="no instance in the split",
            found=f"no {chosen} instance among {len(dataset)}",
            expected="some",
            next_step="Choose another --split.",
        )
    return rows, f"{len(rows):,} of {len(dataset):,} instances: {SPLITS[chosen]}"


def leaks_of(model: FittedModel, dataset: Dataset, rows: npt.NDArray[np.int64]) -> Leaks:
    """Return how many instances to be evaluated share vectors with those that trained; see ``Aligner.leaks``."""
    own = dataset.known_among(model.seen["train"])
    trained = {name.removeprefix(VECTORS): model.seen[name] for name in model.seen if name.startswith(VECTORS)}
    evaluated = rows[~own[rows]]
    return find_leaks(hashes_of(dataset, evaluated), trained or trained_vectors(dataset, own), dataset.names)
