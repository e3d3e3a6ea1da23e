"""The bank: every instance's principal-component scores, computed once, from which training draws its batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pmrl_cli.data.dataset import Dataset
from pmrl_cli.data.ids import hash_ids
from pmrl_cli.errors import DataError
from pmrl_cli.files.scratch import Scratch
from pmrl_cli.gcca import Projection, fit_projection, inverse_deviation, standardise
from pmrl_cli.moments import ColumnMoments, CrossMoments, SecondMoment

__all__ = ["COMPONENTS", "Bank", "build_bank", "given_projections"]

COMPONENTS = 256
"""Principal components kept per modality: more did not help on any set measured, fewer lost where rows are many."""

AXES_ROWS = 4096
"""A modality with more columns than this finds its principal axes on this many training rows chosen by hash, so
that no state grows beyond AXES_ROWS x d."""


@dataclass(frozen=True)
class Bank:
    """Scores of all instances and the moments of the training ones.

    Args:
        projections: per modality, features to scores.
        variances: per modality (p_m,) variance of each score over training instances.
        cross: weighted moments of the scores over training instances; empty where features are taken as given.
        scores: per modality (n, p_m) float32, zero rows where absent; in memory or memory-mapped.
        present: (n, k) bool.
    """

    projections: tuple[Projection, ...]
    variances: tuple[npt.NDArray[np.float64], ...]
    cross: CrossMoments
    scores: tuple[npt.NDArray[np.float32], ...]
    present: npt.NDArray[np.bool_]


def _axes_rows(dataset: Dataset, rows: npt.NDArray[np.int64], dim: int, seed: int) -> npt.NDArray[np.int64]:
    if dim <= AXES_ROWS or len(rows) <= AXES_ROWS:
        return rows
    hashes = hash_ids(dataset.ids.take(rows), seed)
    return np.sort(rows[np.argsort(hashes, kind="stable")[:AXES_ROWS]])


def _fit_projections(dataset: Dataset, train: npt.NDArray[np.bool_], seed: int) -> list[Projection]:
    projections: list[Projection] = []
    for m, features in enumerate(dataset.modalities):
        rows = np.flatnonzero(train & dataset.present[:, m])
        if len(rows) < 2:
            what = "too few training instances"
            raise DataError(
                what,
                found=f"{len(rows)} with modality {features.name!r}",
                expected="2 or more (in practice hundreds)",
                next_step="Give more instances, or lower the shares held out (--validation, --test).",
            )
        columns = ColumnMoments(features.dim)
        for block in dataset.blocks(rows):
            columns.add(features.read(block))
        second = SecondMoment(features.dim)
        scale = inverse_deviation(columns)
        for block in dataset.blocks(_axes_rows(dataset, rows, features.dim, seed)):
            second.add(standardise(features.read(block), columns.mean, scale))
        # Past 0.9 n components the whitened scores only restate which instance is which.
        components = max(1, min(features.dim, int(0.9 * len(rows)), COMPONENTS))
        projection, variance = fit_projection(columns, second, components)
        if len(variance) == 0:
            what = "constant modality"
            raise DataError(
                what,
                found=f"every training row of modality {features.name!r} is the same",
                expected="rows that differ",
                next_step="Leave the modality out, or check what wrote it.",
            )
        projections.append(projection)
    return projections


def given_projections(dataset: Dataset, train: npt.NDArray[np.bool_]) -> list[Projection]:
    """Return projections that leave features as they are, but centred and divided by one number per modality.

    That number is their root mean square deviation, so that scores have variance 1 on average. No modality may be
    constant.
    """
    projections: list[Projection] = []
    for m, features in enumerate(dataset.modalities):
        columns = ColumnMoments(features.dim)
        for block in dataset.blocks(np.flatnonzero(train & dataset.present[:, m])):
            columns.add(features.read(block))
        scale = np.mean(columns.deviation**2) ** -0.5
        zeros = np.zeros(features.dim, dtype=np.float32)
        projections.append(
            Projection(
                columns.mean.astype(np.float32),
                np.full(features.dim, scale, dtype=np.float32),
                zeros,
                np.eye(features.dim, dtype=np.float32),
            )
        )
    return projections


def build_bank(
    dataset: Dataset,
    train: npt.NDArray[np.bool_],
    *,
    seed: int,
    scratch: Scratch,
    given: bool = False,
    report: Callable[[str], None] = lambda _: None,
) -> Bank:
    """Fit the projections on the training instances and project every instance.

    Args:
        dataset: what is read.
        train: (n,) bool, the instances that moments are taken over.
        seed: of the hash that chooses rows where there are more than needed.
        scratch: where the scores live.
        given: take the features as they are, centred, and no cross moments; else their principal components.
        report: told what is being done.

    Three sequential passes over the features: column moments, principal axes, scores with their cross moments.

    Raises: DataError if a modality has fewer than two training instances, or is constant over them.
    """
    report("principal components")
    projections = given_projections(dataset, train) if given else _fit_projections(dataset, train, seed)
    report("scores and cross moments")
    widths = [projection.basis.shape[1] for projection in projections]
    scores = tuple(scratch.empty((len(dataset), width)) for width in widths)
    cross = CrossMoments([] if given else widths)
    columns = [ColumnMoments(width) for width in widths]
    for block in dataset.blocks():
        present = dataset.present[block]
        chosen = train[block]
        for m, features in enumerate(dataset.modalities):
            scores[m][block] = projections[m].scores(features.read(block)) * present[:, [m]]
            columns[m].add(scores[m][block][chosen & present[:, m]])
        if not given:
            cross.add([s[block][chosen] for s in scores], present[chosen])
    # Of all training instances: those the axes were found on may be a sample, on which they are too large.
    variances = [moments.deviation**2 for moments in columns]
    return Bank(tuple(projections), tuple(variances), cross, scores, dataset.present)
