"""The best linear adapter that a part of the instances gives: what asking "could it be aligned?" means here.

It is the closed form a fit starts from (standardise, principal components, ridge MAXVAR GCCA), with the ridge chosen
on a third of the instances it may see. It is to be measured on others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pmrl_cli.array_types import Mask
from pmrl_cli.closed_form.gcca import gcca
from pmrl_cli.closed_form.moments import ColumnMoments, CrossMoments, SecondMoment
from pmrl_cli.closed_form.projection import Projection, fit_projection, inverse_deviation, standardise
from pmrl_cli.retrieval.batches import Batch
from pmrl_cli.retrieval.metrics import reciprocal_ranks
from pmrl_cli.retrieval.ranks import rank_batch

__all__ = ["COMPONENTS", "RIDGES", "LinearAdapter", "LinearMoments", "Vectors", "fit_linear"]

Vectors = Sequence[npt.NDArray[np.floating]]

COMPONENTS = 256
"""Principal components of each modality at most."""

RIDGES = (0.001, 0.01, 0.1, 1.0)
"""Relative to the mean variance of a modality's components. The two in the middle are tried, and the one beyond the
better of them."""

_FEWEST = 6
"""Instances below which no ridge is chosen: the largest is taken."""


@dataclass(frozen=True)
class LinearAdapter:
    """One map for each modality into shared directions.

    Args:
        projections: standardised principal components of each modality.
        maps: (p_m, D) from components to directions, the most shared first.
        weights: (D,) in [0, 1], how much each direction is shared where the adapter was fitted.
    """

    projections: tuple[Projection, ...]
    maps: tuple[npt.NDArray[np.float32], ...]
    weights: npt.NDArray[np.float32]

    def directions(self, vectors: Vectors) -> list[npt.NDArray[np.float32]]:
        """Return the (n, D) unweighted directions of each modality."""
        return [
            projection.scores(one) @ maps
            for projection, maps, one in zip(self.projections, self.maps, vectors, strict=True)
        ]

    def embed(self, vectors: Vectors, present: Mask) -> Batch:
        """Return the instances in the shared space: weighted directions at unit length.

        Args:
            vectors: (n, d_m) of each modality, any finite values where absent.
            present: (n, K).
        """
        stacked = torch.from_numpy(np.stack(self.directions(vectors), axis=1) * self.weights)
        mask = torch.from_numpy(present)
        unit: Tensor = torch.nn.functional.normalize(stacked, dim=2) * mask[..., None]
        return Batch(np.arange(len(present)), unit, mask)


def fit_linear(vectors: Vectors, present: Mask, inner: Mask) -> LinearAdapter:
    """Return the linear adapter of all the instances, its ridge chosen on some of them.

    Args:
        vectors: (n, d_m) of each modality.
        present: (n, K).
        inner: (n,) instances that choose the ridge; whole groups, or the choice favours too small a ridge.
    """
    ridge = RIDGES[-1]
    if min(inner.sum(), (~inner).sum()) >= _FEWEST:
        moments = LinearMoments.of([one[~inner] for one in vectors], present[~inner])
        held = [one[inner] for one in vectors]
        quality = {one: _reciprocal_rank(moments.adapter(one).embed(held, present[inner])) for one in RIDGES[1:-1]}
        beyond = RIDGES[0] if quality[RIDGES[1]] >= quality[RIDGES[-2]] else RIDGES[-1]
        quality[beyond] = _reciprocal_rank(moments.adapter(beyond).embed(held, present[inner]))
        ridge = max(sorted(quality), key=quality.__getitem__)
    return LinearMoments.of(vectors, present).adapter(ridge)


def _reciprocal_rank(batch: Batch) -> float:
    ranked = rank_batch(batch, tuple(map(str, range(batch.present.shape[1]))), fused=False)
    return float(np.mean([reciprocal_ranks(ranks).mean() for ranks in ranked.values()])) if ranked else 0.0


class LinearMoments(NamedTuple):
    """What the adapters of some instances, one for each ridge, are solved from.

    Args:
        projections: of each modality.
        variances: of the scores of each.
        cross: joint moments of the scores.
    """

    projections: tuple[Projection, ...]
    variances: tuple[npt.NDArray[np.float64], ...]
    cross: CrossMoments

    @classmethod
    def of(cls, vectors: Vectors, present: Mask) -> LinearMoments:
        """Return those of instances: (n, d_m) of each modality, (n, K) present."""
        fitted, scores = [], []
        for m, block in enumerate(vectors):
            having = block[present[:, m]]
            columns, second = ColumnMoments(block.shape[1]), SecondMoment(block.shape[1])
            columns.add(having)
            # Products in float64: what states say must not depend, beyond 1e-10, on how they were merged.
            second.add(standardise(having, columns.mean, inverse_deviation(columns)).astype(np.float64))
            fitted.append(fit_projection(columns, second, COMPONENTS))
            scores.append(fitted[-1][0].scores(block))
        projections, variances = zip(*fitted, strict=True)
        cross = CrossMoments([len(variance) for variance in variances])
        cross.add([one.astype(np.float64) for one in scores], present)
        return cls(projections, variances, cross)

    def adapter(self, ridge: float) -> LinearAdapter:
        """Return the adapter of a ridge."""
        solved = gcca(self.cross, self.variances, ridge=ridge, dim=max(1, min(self.cross.dims)))
        maps = tuple(
            (whiten[:, None] * directions).astype(np.float32)
            for whiten, directions in zip(solved.whiten, solved.maps, strict=True)
        )
        # Where nothing is shared all directions are as good: weights of 0 would map everything to the origin.
        weights = solved.correlations if solved.correlations.any() else np.ones_like(solved.correlations)
        return LinearAdapter(self.projections, maps, weights.astype(np.float32))
