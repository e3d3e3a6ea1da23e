"""Projections: the fixed maps from a modality's features to its scores.

Features are standardised, kept from running away (clipped or squashed), and rotated to principal axes. A kernel
projection then measures how near those lie to some training instances, and takes the principal axes of that: the
same linear methods on its scores are nonlinear in the features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
from scipy.linalg import solve_triangular

from pmrl_cli.closed_form.leading import leading_eigenvectors
from pmrl_cli.closed_form.moments import ColumnMoments, SecondMoment

__all__ = ["CLIP", "WIDTH", "FeatureMap", "Kernel", "Projection", "fit_kernel", "fit_projection", "standardise"]

FloatArray = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

CLIP = 10.0
"""Standardised features are clipped at this many standard deviations, so that no outlier owns a direction."""

WIDTH = 0.3
"""Exponent of the kernel at the median squared distance between instances: exp(-0.3) = 0.74. Anything from 0.25 to
0.5 did as well; at 1 sets of a few hundred instances lose."""

_VARIANCE = 20.0
"""Largest of a squashed column when it is undone: its exponential must stay a number."""

_ROWS = 4096  # of a block whose kernel is held at once

_SAME = 1e-13
"""Share of the largest squared length below which two landmarks are one."""

_NOISE = 1e-7
"""Added to the kernel between landmarks, as a share of its trace, which bounds its largest eigenvalue."""


class FeatureMap(NamedTuple):
    """What kind of scores a projection makes.

    Args:
        kind: ``linear`` (principal components), ``kernel`` (nearness to training instances), or ``given`` (the
            features as they are, centred).
        squash: asinh of the standardised features, instead of clipping them.
    """

    kind: str
    squash: bool

    def __str__(self) -> str:
        return f"{self.kind}, squashed" if self.squash else self.kind


def standardise(
    block: npt.NDArray[np.floating],
    mean: npt.NDArray[np.floating],
    scale: npt.NDArray[np.floating],
    *,
    squash: bool = False,
) -> FloatArray:
    """Return z = (block - mean) * scale, clipped at +-``CLIP`` or, squashed, asinh(z); float32 (B, d)."""
    shifted = block - mean.astype(np.float32, copy=False)
    shifted *= scale.astype(np.float32, copy=False)
    kept = np.arcsinh(shifted, out=shifted) if squash else np.clip(shifted, -CLIP, CLIP, out=shifted)
    return kept.astype(np.float32, copy=False)


def _in_rows(one: Kernel | Projection) -> None:
    """Lay the arrays out row by row, as they are read back: a product rounds by the layout of its factors."""
    for name, value in vars(one).items():
        if isinstance(value, np.ndarray):
            object.__setattr__(one, name, np.ascontiguousarray(value))


@dataclass(frozen=True)
class Kernel:
    """Nearness to landmarks: scores = exp(-width |s - l|^2) @ basis - center.

    Args:
        landmarks: (L, p) linear scores of training instances.
        width: (1,) of the Gaussian, >= 0.
        center: (q,) mean over training instances of what is before it.
        basis: (L, q) from the kernel's values to principal axes of the space they span.

    Source: Williams, Seeger, "Using the Nystroem Method to Speed Up Kernel Machines", NeurIPS 2000.
    """

    landmarks: FloatArray
    width: FloatArray
    center: FloatArray
    basis: FloatArray

    def __post_init__(self) -> None:
        _in_rows(self)

    @cached_property
    def _squares(self) -> FloatArray:
        """(L,) squared lengths of the landmarks."""
        squares: FloatArray = np.square(self.landmarks).sum(axis=1)
        return squares

    def values(self, scores: FloatArray) -> FloatArray:
        """Return the (B, L) kernel between (B, p) scores and the landmarks, in (0, 1]."""
        squared = np.square(scores).sum(axis=1)[:, None] + self._squares
        squared -= 2 * (scores @ self.landmarks.T)
        np.maximum(squared, 0, out=squared)
        squared *= -self.width
        values: FloatArray = np.exp(squared, out=squared)
        return values

    def scores(self, scores: FloatArray) -> FloatArray:
        """Return (B, q) scores for (B, p) linear ones."""
        out = np.empty((len(scores), self.basis.shape[1]), dtype=np.float32)
        for first in range(0, len(scores), _ROWS):
            out[first : first + _ROWS] = self.values(scores[first : first + _ROWS]) @ self.basis
        out -= self.center
        return out


@dataclass(frozen=True)
class Projection:
    """The fixed map from a modality's features to its scores.

    linear scores = (standardise(x) - center) @ basis; a kernel maps those on.

    Args:
        mean: (d,) column means.
        scale: (d,) inverse deviations, 0 for constant columns.
        center: (d,) mean of the clipped or squashed columns.
        basis: (d, p) principal axes, each times whatever scale the user of the scores wants.
        squash: whether standardised features are squashed, not clipped.
        kernel: what follows, or None.
    """

    mean: FloatArray
    scale: FloatArray
    center: FloatArray
    basis: FloatArray
    squash: bool = False
    kernel: Kernel | None = None

    def __post_init__(self) -> None:
        _in_rows(self)

    @property
    def dim(self) -> int:
        """Columns of the features."""
        return len(self.mean)

    @property
    def components(self) -> int:
        """Columns of the scores."""
        return int((self.kernel or self).basis.shape[1])

    def scores(self, block: npt.NDArray[np.floating]) -> FloatArray:
        """Return the (B, p) float32 scores of a (B, d) block."""
        standard = standardise(block, self.mean, self.scale, squash=self.squash)
        standard -= self.center
        linear = standard @ self.basis
        return linear if self.kernel is None else self.kernel.scores(linear)

    def features(
        self, components: FloatArray, deviations: FloatArray, spread: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return the (B, d) features whose components these are, and their standard deviations.

        The inverse on the span of the principal axes. What is outside of it has its mean, and for a deviation the
        variance of a standardised column, 1, that the components do not hold (nothing where squashed: its variance
        is not known). Errors of components are taken as uncorrelated and Gaussian: of a squashed column y with mean
        m and variance v, E sinh(y) = exp(v / 2) sinh(m) and var sinh(y) = (exp(v) - 1) (exp(v) cosh(2 m) + 1) / 2.

        Args:
            components: (B, p).
            deviations: (B, p) their standard deviations.
            spread: (p,) standard deviation of each component over all instances.
        """
        assert self.kernel is None
        back = self.basis / np.square(self.basis).sum(axis=0).clip(np.finfo(np.float32).tiny)  # orthogonal columns
        standard = components @ back.T + self.center
        variance = np.square(deviations) @ np.square(back).T
        if self.squash:
            variance = np.minimum(variance, _VARIANCE)
            spread_out = np.exp(variance)
            errors = np.sqrt(np.expm1(variance) * (spread_out * np.cosh(2 * standard) + 1) / 2)
            standard = np.sqrt(spread_out) * np.sinh(standard)
        else:
            held = np.square(spread) @ np.square(back).T
            errors = np.sqrt(variance + (1 - held).clip(0))
        scale = np.where(self.scale > 0, self.scale, np.inf)
        values: FloatArray = (standard / scale + self.mean).astype(np.float32)
        return values, (errors / scale).astype(np.float32)

    def times(self, factors: FloatArray) -> Self:
        """Return the projection whose scores are these times (p,) factors."""
        if self.kernel is None:
            return replace(self, basis=self.basis * factors)
        kernel = replace(self.kernel, basis=self.kernel.basis * factors, center=self.kernel.center * factors)
        return replace(self, kernel=kernel)

    def arrays(self) -> dict[str, FloatArray]:
        """Return what has to be stored beside ``squash``, by name."""
        arrays = {name: getattr(self, name) for name in ("mean", "scale", "center", "basis")}
        if self.kernel is not None:
            arrays |= {f"kernel.{name}": getattr(self.kernel, name) for name in Kernel.__dataclass_fields__}
        return arrays

    @staticmethod
    def array_names(*, kernel: bool) -> tuple[str, ...]:
        """Return the names under which a projection is stored."""
        names = ("mean", "scale", "center", "basis")
        return names + tuple(f"kernel.{name}" for name in Kernel.__dataclass_fields__) if kernel else names

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, FloatArray], *, squash: bool) -> Self:
        """Build a projection from what ``arrays`` returned."""
        kernel = {name.removeprefix("kernel."): a for name, a in arrays.items() if name.startswith("kernel.")}
        linear = {name: a for name, a in arrays.items() if not name.startswith("kernel.")}
        return cls(**linear, squash=squash, kernel=Kernel(**kernel) if kernel else None)


def inverse_deviation(columns: ColumnMoments) -> Float64Array:
    """Return 1 / deviation per column, 0 where the column is constant to rounding, or in float32."""
    deviation = columns.deviation
    constant = (deviation <= 1e-7 * np.abs(columns.mean)) | (deviation < np.finfo(np.float32).tiny)
    return np.where(constant, 0.0, 1.0 / np.where(deviation > 0, deviation, np.inf))


def fit_projection(
    columns: ColumnMoments, second: SecondMoment, components: int, *, squash: bool = False
) -> tuple[Projection, Float64Array]:
    """Return the linear projection on p <= ``components`` principal components, and the (p,) variance of each.

    Args:
        columns: moments of the raw columns.
        second: second moment of the standardised columns, clipped or squashed.
        components: how many components at most; a modality that is constant has none.
        squash: which of the two.
    """
    axes, variances = second.principal_axes(components)
    projection = Projection(
        columns.mean.astype(np.float32),
        inverse_deviation(columns).astype(np.float32),
        second.mean.astype(np.float32),
        axes.astype(np.float32),
        squash,
    )
    return projection, variances


def fit_kernel(linear: Projection, landmarks: FloatArray, sample: FloatArray, components: int) -> Projection:
    """Return ``linear`` followed by a kernel on q <= ``components`` principal axes.

    Args:
        linear: the projection that makes the scores.
        landmarks: (L, p) scores of some training instances, not all the same.
        sample: (S, p) scores of the training instances that the principal axes are found on.
        components: axes wanted; those of no variance are left out.
    """
    some = landmarks[:512].astype(np.float64)
    squares = np.square(some).sum(axis=1)
    apart = squares[:, None] + squares - 2 * (some @ some.T)
    apart[apart <= _SAME * squares.max()] = 0  # rounding of the products
    median = float(np.median(apart[apart > 0])) if (apart > 0).any() else np.inf
    empty = np.zeros(0, dtype=np.float32)
    kernel = Kernel(landmarks, np.array([WIDTH / median], dtype=np.float32), empty, empty)
    between = kernel.values(landmarks).astype(np.float64)
    # Directions below the rounding of float32 kernels are noise that dividing by their root would blow up.
    between[np.diag_indices_from(between)] += _NOISE * np.trace(between)
    lower = np.linalg.cholesky(between)
    points = solve_triangular(lower, kernel.values(sample).T.astype(np.float64), lower=True, check_finite=False)
    mean = points.mean(axis=1)
    points -= mean[:, None]
    variances, axes = leading_eigenvectors(points @ points.T / points.shape[1], components)
    axes = axes[:, variances > 1e-9 * max(variances[0], 1e-30)]
    basis = solve_triangular(lower, axes, lower=True, trans="T", check_finite=False)
    kernel = replace(kernel, center=(mean @ axes).astype(np.float32), basis=basis.astype(np.float32))
    return replace(linear, kernel=kernel)
