"""The closed form: standardise, principal components, ridge MAXVAR GCCA, all from moments.

MAXVAR generalised canonical correlation analysis finds the directions shared by all modalities at the level of
the data set: the leading eigenvectors of the covariance of the whitened modalities side by side. It is the
counterpart, over instances, of what the objective maximises within one instance, and where a fit starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from pmrl_cli.moments import ColumnMoments, CrossMoments, SecondMoment

__all__ = ["CLIP", "Gcca", "Projection", "fit_projection", "gcca", "standardise"]

Float64Array = npt.NDArray[np.float64]

CLIP = 10.0
"""Standardised features are clipped at this many standard deviations, so that no outlier owns a direction."""


def standardise(
    block: npt.NDArray[np.floating], mean: npt.NDArray[np.floating], scale: npt.NDArray[np.floating]
) -> npt.NDArray[np.float32]:
    """Return (block - mean) * scale, clipped at +-``CLIP``, as float32 (B, d)."""
    shifted = (block - mean.astype(np.float32)) * scale.astype(np.float32)
    return np.clip(shifted, -CLIP, CLIP, out=shifted).astype(np.float32, copy=False)


@dataclass(frozen=True)
class Projection:
    """The fixed map from a modality's features to its scores: standardise, clip, rotate.

    scores = (clip((x - mean) * scale, +-CLIP) - center) @ basis

    Args:
        mean: (d,) column means.
        scale: (d,) inverse deviations, 0 for constant columns.
        center: (d,) mean of the clipped columns.
        basis: (d, p) principal axes, each times whatever scale the user of the scores wants.
    """

    mean: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float32]
    center: npt.NDArray[np.float32]
    basis: npt.NDArray[np.float32]

    def scores(self, block: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """Return the (B, p) float32 scores of a (B, d) block."""
        standard = standardise(block, self.mean, self.scale)
        standard -= self.center
        return standard @ self.basis


def inverse_deviation(columns: ColumnMoments) -> Float64Array:
    """Return 1 / deviation per column, 0 where the column is constant to rounding, or in float32."""
    deviation = columns.deviation
    constant = (deviation <= 1e-7 * np.abs(columns.mean)) | (deviation < np.finfo(np.float32).tiny)
    return np.where(constant, 0.0, 1.0 / np.where(deviation > 0, deviation, np.inf))


def fit_projection(columns: ColumnMoments, second: SecondMoment, components: int) -> tuple[Projection, Float64Array]:
    """Return the projection on the principal components and the variance of each score.

    Args:
        columns: moments of the raw columns.
        second: second moment of the standardised, clipped columns.
        components: how many components at most.

    Returns: the projection with p <= components, and (p,) variances, descending.
    """
    axes, variances = second.principal_axes(components)
    return (
        Projection(
            columns.mean.astype(np.float32),
            inverse_deviation(columns).astype(np.float32),
            second.mean.astype(np.float32),
            axes.astype(np.float32),
        ),
        variances,
    )


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


def gcca(cross: CrossMoments, variances: Sequence[Float64Array], *, ridge: float, dim: int) -> Gcca:
    """Solve ridge MAXVAR GCCA from the cross moments of the scores.

    Scores are whitened by (variance + ridge * mean variance)^(-1/2); the directions are the leading eigenvectors of
    the stacked covariance, each modality normalised by the total weight of its own instances: unrelated modalities
    then have eigenvalues of 1 whatever is missing.

    Args:
        cross: weighted moments of the scores.
        variances: per modality (p_m,) variances of the scores.
        ridge: relative ridge, > 0.
        dim: directions wanted; at most the sum of the p_m are returned.

    Source: Kettenring, Biometrika 58 (1971), MAXVAR; ridge as in regularised GCCA (Tenenhaus and Tenenhaus,
        Psychometrika 76, 2011). Departs: the ridge is relative to the mean variance of the modality.
    """
    whiten = tuple((v + ridge * (v.mean() if len(v) else 0.0)) ** -0.5 for v in variances)
    factor = np.concatenate([w / np.sqrt(max(1.0, n)) for w, n in zip(whiten, cross.weights, strict=True)])
    covariance = cross.products * factor[:, None] * factor[None, :]
    eigenvalues, vectors = np.linalg.eigh(covariance)
    order = np.argsort(eigenvalues)[::-1][:dim]
    eigenvalues, vectors = eigenvalues[order], vectors[:, order]
    signs = np.where(vectors.sum(axis=0) < 0, -1.0, 1.0)
    vectors = vectors * signs
    k = len(cross.dims)
    correlations = np.clip((eigenvalues - 1.0) / max(1, k - 1), 0.0, 1.0)
    edges = np.cumsum([0, *cross.dims])
    return Gcca(correlations, whiten, tuple(vectors[a:b] for a, b in pairwise(edges)))
