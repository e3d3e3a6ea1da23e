"""What each modality says of a label: alone, beside all others, and its fair share of what all say together."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pmrl_cli.array_types import Array
from pmrl_cli.data.columns import codes_of
from pmrl_cli.data.dataset import Dataset
from pmrl_cli.data.ids import hash_ids
from pmrl_cli.errors import DataError
from pmrl_cli.information.heads import held_out_log_losses
from pmrl_cli.information.shapley import check_modalities, conditional_weights, shapley_weights
from pmrl_cli.stats.statistic import Statistic

__all__ = ["contribution_section"]

MOST = 5000
"""Instances that are predicted, chosen by hash: the error of a mean over as many is small."""

RARE = 10
"""A class of fewer instances is in too few folds to be learned; they are left out."""

FEWEST = 50
"""Instances with all modalities, below which nothing is reported."""


def contribution_section(dataset: Dataset, target: str, group: str | None = None, *, seed: int = 0) -> dict[str, Any]:
    """Return the section ``contribution`` of a diagnosis: information about a side column, in nats.

    With v(S) = CE of the class frequencies - CE of a prediction from the modalities S, both on instances whose group
    the predictors did not see (``held_out_log_losses``): v estimates I(X_S; Y) from below. Of a modality m

    * ``alone`` is v({m}): what it says;
    * ``conditional`` is v(all) - v(all but m): what it says that no other does. Above ``alone`` where modalities say
      something only together; 0 for a copy of another;
    * ``shapley`` is its Shapley value: over all modalities they add up to ``all``.

    All are 0 by chance. Small values below 0 are predictors that learned what does not hold elsewhere. Errors are
    those of the mean over instances, by group; they leave out how the predictors vary with what they were trained on.

    Args:
        dataset: modalities of any dimension: features, or embeddings of one space.
        target: side column of classes; instances without one are left out.
        group: side column of independent units, never on both sides.
        seed: of the folds and the predictors.

    Raises: UsageError for an unknown column or more than 6 modalities; DataError unless the column has two classes of
        ``RARE`` instances or more.

    Source: after the valuation of ARM (Gao et al., AAAI 2025, arXiv 2501.01240), with variational bounds (Barber,
        Agakov, NIPS 2003) and Shapley, 1953; see ``held_out_log_losses``.
    """
    check_modalities(len(dataset.names))
    codes, units = codes_of(dataset, target), _units(dataset, group)
    counts = np.bincount(codes[codes >= 0])
    common = np.flatnonzero(counts >= RARE)
    if len(common) < 2:
        raise DataError(
            what="no classes to predict",
            found=f"{len(counts):,} values of {target}, {len(common)} of which {RARE} or more instances have",
            expected=f"two classes of {RARE} instances or more",
            next_step="Name a column of classes with --target.",
        )
    rows = np.flatnonzero(np.isin(codes, common) & dataset.present.any(axis=1))
    if len(rows) > MOST:
        rows = np.sort(rows[np.argsort(hash_ids(dataset.ids.take(rows), seed), kind="stable")[:MOST]])
    section: dict[str, Any] = {
        "target": target,
        "classes": len(common),
        "predicted_from": len(rows),
        "left_out": {
            "without_class": int((codes < 0).sum()),
            "of_rare_classes": int(((codes >= 0) & ~np.isin(codes, common)).sum()),
        },
    }
    vectors = [np.asarray(features.read(rows)) for features in dataset.modalities]
    evaluated, losses = held_out_log_losses(
        vectors, dataset.present[rows], np.searchsorted(common, codes[rows]), units[rows], seed=seed
    )
    return section | _summary(dataset.names, losses, units[rows][evaluated])


def _units(dataset: Dataset, group: str | None) -> npt.NDArray[np.int64]:
    """Return (n,) the group of each instance; one without is a group of its own."""
    own = np.arange(len(dataset))
    if group is None:
        return own
    codes = codes_of(dataset, group)
    return np.where(codes >= 0, codes, len(dataset) + own)


def _summary(names: tuple[str, ...], losses: Array, units: npt.NDArray[np.int64]) -> dict[str, Any]:
    modalities = len(names)
    values = losses[:, :1] - losses

    def statistic(of_each: Array) -> Statistic:
        if len(of_each) < FEWEST:
            return Statistic.unknown(n=len(of_each), chance=0.0, null="closed_form")
        return Statistic.mean(of_each, units, chance=0.0)

    of_instances = {
        "alone": values[:, 1 << np.arange(modalities)],
        "conditional": values @ conditional_weights(modalities).T,
        "shapley": values @ shapley_weights(modalities).T,
    }
    return {
        "entropy": float(losses[:, 0].mean()) if len(losses) >= FEWEST else None,
        "all": statistic(values[:, -1]),
        "modality": {
            name: {kind: statistic(of_each[:, m]) for kind, of_each in of_instances.items()}
            for m, name in enumerate(names)
        },
    }
