"""The best linear adapter that a part of the instances gives: what asking "could it be aligned?" means here.

It is the closed form a fit starts from (standardise, principal components, ridge MAXVAR GCCA), with the ridge chosen
on a third of the instances it may see. It is to be measured on others.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from pmrl_cli.array_types import Mask
from pmrl_cli.closed_form.gcca import gcca
from pmrl_cli.closed_form.moments import ColumnMoments, CrossMoments, SecondMoment
from pmrl_cli.closed_form.projection import Projection, fit_projection, inverse_deviation, standardise
from pmrl_cli.retrieval.batches import Batch
from pmrl_cli.retrieval.metrics import reciprocal_ranks
from pmrl_cli.retrieval.partners import partner_ranks

__all__ = ["COMPONENTS", "RIDGES", "LinearAdapter", "LinearMoments", "Side", "Vectors", "fit_linear", "sides_of"]

Result = TypeVar("Result")
Vectors = Sequence[npt.NDArray[np.floating]]

COMPONENTS = 256
"""Principal components of each modality at most."""

RIDGES = (0.001, 0.01, 0.1, 1.0)
"""Relative to the mean variance of a modality's components. The two in the middle are tried, and the one beyond the
better of them."""

_SHORTEST = 1e-12  # a vector shorter than this is taken for zero

_FEWEST = 6
"""Instances below which no ridge is chosen: the largest is taken."""


class _Vectors:
    """Vectors of a modality, and what was computed of rows of them: all pairs of modalities ask for the same."""

    def __init__(self, vectors: npt.NDArray[np.floating]) -> None:
        self.vectors = vectors
        self._found: dict[Hashable, Any] = {}

    def once(self, key: Hashable, compute: Callable[[], Result]) -> Result:
        """Return what is computed at the first call with a key."""
        if key not in self._found:
            self._found[key] = compute()
        found: Result = self._found[key]
        return found


class Side(NamedTuple):
    """Rows of a modality.

    Args:
        of: the vectors.
        at: (n,) which of them.
    """

    of: _Vectors
    at: npt.NDArray[np.int64]

    def those(self, mask: Mask) -> Side:
        """Return some of the rows."""
        return Side(self.of, self.at[mask])

    def projection(self) -> tuple[Projection, npt.NDArray[np.float64]]:
        """Return standardised principal components of the rows, and their variances."""
        return self.of.once(self.at.tobytes(), lambda: _projection_of(self.of.vectors[self.at]))

    def scores(self, fitted: Side) -> npt.NDArray[np.float32]:
        """Return the (n, p) scores of the rows by the projection of others."""
        key = fitted.of, fitted.at.tobytes(), self.at.tobytes()
        return self.of.once(key, lambda: fitted.projection()[0].scores(self.of.vectors[self.at]))


def sides_of(vectors: Vectors) -> list[Side]:
    """Return all rows of (n, d_m) vectors of each modality."""
    return [Side(_Vectors(one), np.arange(len(one))) for one in vectors]


def _projection_of(having: npt.NDArray[np.floating]) -> tuple[Projection, npt.NDArray[np.float64]]:
    columns, second = ColumnMoments(having.shape[1]), SecondMoment(having.shape[1])
    columns.add(having)
    # Products in float64: what states say must not depend, beyond 1e-10, on how they were merged.
    second.add(standardise(having, columns.mean, inverse_deviation(columns)).astype(np.float64))
    return fit_projection(columns, second, COMPONENTS)


@dataclass(frozen=True)
class LinearAdapter:
    """One map for each modality into shared directions.

    Args:
        fitted: rows of each modality whose standardised principal components are mapped.
        maps: (p_m, D) from components to directions, the most shared first.
        weights: (D,) in [0, 1], how much each direction is shared where the adapter was fitted.
    """

    fitted: tuple[Side, ...]
    maps: tuple[npt.NDArray[np.float32], ...]
    weights: npt.NDArray[np.float32]

    def directions(self, sides: Sequence[Side]) -> list[npt.NDArray[np.float32]]:
        """Return the (n, D) unweighted directions of each modality."""
        return [one.scores(fitted) @ maps for fitted, maps, one in zip(self.fitted, self.maps, sides, strict=True)]

    def embed(self, sides: Sequence[Side], present: Mask) -> Batch:
        """Return the instances in the shared space: weighted directions at unit length.

        Args:
            sides: n rows of each modality, any finite values where absent.
            present: (n, K).
        """
        return self.embed_directions(self.directions(sides), present)

    def embed_directions(self, directions: Sequence[npt.NDArray[np.float32]], present: Mask) -> Batch:
        """Return the instances of what ``directions`` returned in the shared space."""
        unit = torch.empty(len(present), len(directions), len(self.weights))
        for m, one in enumerate(directions):
            torch.mul(torch.from_numpy(one), torch.from_numpy(self.weights), out=unit[:, m])
        unit /= unit.norm(dim=2, keepdim=True).clamp_min_(_SHORTEST)
        mask = torch.from_numpy(present)
        return Batch(np.arange(len(present)), unit if present.all() else unit * mask[..., None], mask)


def fit_linear(sides: Sequence[Side], present: Mask, inner: Mask) -> LinearAdapter:
    """Return the linear adapter of all the instances, its ridge chosen on some of them.

    Args:
        sides: n rows of each modality.
        present: (n, K).
        inner: (n,) instances that choose the ridge; whole groups, or the choice favours too small a ridge.
    """
    ridge = RIDGES[-1]
    if min(inner.sum(), (~inner).sum()) >= _FEWEST:
        moments = LinearMoments.of([one.those(~inner) for one in sides], present[~inner])
        held = [one.those(inner) for one in sides]

        def reached(ridge: float) -> float:
            return _reciprocal_rank(moments.adapter(ridge, single=True).embed(held, present[inner]))

        quality = {one: reached(one) for one in RIDGES[1:-1]}
        beyond = RIDGES[0] if quality[RIDGES[1]] >= quality[RIDGES[-2]] else RIDGES[-1]
        quality[beyond] = reached(beyond)
        ridge = max(sorted(quality), key=quality.__getitem__)
    return LinearMoments.of(sides, present).adapter(ridge)


def _reciprocal_rank(batch: Batch) -> float:
    ranked = partner_ranks(batch)
    return float(np.mean([reciprocal_ranks(ranks).mean() for ranks in ranked.values()])) if ranked else 0.0


class LinearMoments(NamedTuple):
    """What the adapters of some instances, one for each ridge, are solved from.

    Args:
        fitted: the rows of each modality that have it: those of the projections.
        variances: of the scores of each.
        cross: joint moments of the scores.
    """

    fitted: tuple[Side, ...]
    variances: tuple[npt.NDArray[np.float64], ...]
    cross: CrossMoments

    @classmethod
    def of(cls, sides: Sequence[Side], present: Mask) -> LinearMoments:
        """Return those of instances: n rows of each modality, (n, K) present."""
        fitted = tuple(one.those(present[:, m]) for m, one in enumerate(sides))
        variances = tuple(one.projection()[1] for one in fitted)
        cross = CrossMoments([len(variance) for variance in variances])
        scores = (one.scores(having).astype(np.float64) for one, having in zip(sides, fitted, strict=True))
        cross.add(list(scores), present)
        return cls(fitted, variances, cross)

    def adapter(self, ridge: float, *, single: bool = False) -> LinearAdapter:
        """Return the adapter of a ridge; ``single``: solved in float32, enough to compare ridges."""
        dim = max(1, min(self.cross.dims))
        solved = gcca(self.cross, self.variances, ridge=ridge, dim=dim, single=single)
        maps = tuple(
            (whiten[:, None] * directions).astype(np.float32)
            for whiten, directions in zip(solved.whiten, solved.maps, strict=True)
        )
        # Where nothing is shared all directions are as good: weights of 0 would map everything to the origin.
        weights = solved.correlations if solved.correlations.any() else np.ones_like(solved.correlations)
        return LinearAdapter(self.fitted, maps, weights.astype(np.float32))
