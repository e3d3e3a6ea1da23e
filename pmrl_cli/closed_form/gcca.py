"""The closed form: ridge MAXVAR GCCA and its sibling MCCA, from moments of the scores.

MAXVAR generalised canonical correlation analysis finds the directions shared by all modalities at the level of
the data set: the leading eigenvectors of the covariance of the whitened modalities side by side. It is the
counterpart, over instances, of what the objective maximises within one instance, and where a fit starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pmrl_cli.array_types import Array as Float64Array
from pmrl_cli.closed_form.moments import CrossMoments

__all__ = ["SOLVERS", "Gcca", "gcca"]


SOLVERS = ("gcca", "mcca")
"""Closed forms: MAXVAR, and MCCA (SUMCOR with the sum of variances held), which ignores how each modality agrees
with itself. They differ only through the ridge."""


@dataclass(frozen=True)
class Gcca:
    """The closed-form solution for one ridge.

    Args:
        correlations: (D,) share of agreement of each direction, in [0, 1]: 0 = as unrelated modalities, 1 = all
            modalities identical along it; descending.
        whiten: per modality (p_m,) factors that turn its scores into ridge-whitened ones.
        maps: per modality (p_m, D), from ridge-whitened scores to the shared directions.
    """

    correlations: Float64Array
    whiten: tuple[Float64Array, ...]
    maps: tuple[Float64Array, ...]


def gcca(
    cross: CrossMoments,
    variances: Sequence[Float64Array],
    *,
    ridge: float,
    dim: int,
    solver: str = "gcca",
    single: bool = False,
) -> Gcca:
    """Solve ridge MAXVAR GCCA from the cross moments of the scores.

    Scores are whitened by (variance + ridge * mean variance)^(-1/2); the directions are the leading eigenvectors of
    the stacked covariance, each modality normalised by the total weight of its own instances: unrelated modalities
    then have eigenvalues of 1 whatever is missing.

    Args:
        cross: weighted moments of the scores.
        variances: per modality (p_m,) variances of the scores.
        ridge: relative ridge, > 0.
        dim: directions wanted; at most the sum of the p_m are returned.
        solver: ``gcca`` (MAXVAR) or ``mcca`` (the same without each modality's own block).
        single: decompose in float32, the type the products of scores were taken in: enough to compare ridges.

    Source: Kettenring, Biometrika 58 (1971), MAXVAR and SUMCOR; ridge as in regularised GCCA (Tenenhaus and
        Tenenhaus, Psychometrika 76, 2011). Departs: the ridge is relative to the mean variance of the modality.
    """
    whiten = tuple((v + ridge * (v.mean() if len(v) else 0.0)) ** -0.5 for v in variances)
    factor = np.concatenate([w / np.sqrt(max(1.0, n)) for w, n in zip(whiten, cross.weights, strict=True)])
    on = cross.arithmetic
    factors = on.send(factor)
    covariance = cross.products * factors[:, None] * factors[None, :]
    edges = np.cumsum([0, *cross.dims])
    own = 1.0
    rank: int | None = cross.instances
    if solver == "mcca":
        own, rank = 0.0, None  # without the own blocks some eigenvalues are negative
        for a, b in pairwise(edges):
            covariance[a:b, a:b] = 0.0
    if single:
        covariance = on.cast(covariance, on.xp.float32)
    eigenvalues, vectors = map(on.fetch, on.leading_eigenvectors(covariance, dim, rank))
    signs = np.where(vectors.sum(axis=0) < 0, -1.0, 1.0)
    vectors = vectors * signs
    k = len(cross.dims)
    correlations = np.clip((eigenvalues - own) / max(1, k - 1), 0.0, 1.0)
    return Gcca(correlations, whiten, tuple(vectors[a:b] for a, b in pairwise(edges)))
