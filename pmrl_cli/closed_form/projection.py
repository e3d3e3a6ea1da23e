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

from pmrl_cli.array_types import Array as Float64Array
from pmrl_cli.closed_form.arithmetic import CPU, Arithmetic, Array, arithmetic_of
from pmrl_cli.closed_form.moments import ColumnMoments, SecondMoment

__all__ = [
    "CLIP",
    "LANDMARKS",
    "WIDTH",
    "FeatureMap",
    "Kernel",
    "Projection",
    "fit_kernel",
    "fit_projection",
    "standardise",
]

FloatArray = npt.NDArray[np.float32]

CLIP = 10.0
"""Standardised features are clipped at this many standard deviations, so that no outlier owns a direction."""

LANDMARKS = 1024
"""Training instances whose nearness makes a kernel's components."""

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
        landmarks: training instances that a kernel takes nearness to, at most.
    """

    kind: str
    squash: bool
    landmarks: int = LANDMARKS

    def __str__(self) -> str:
        return f"{self.kind}, squashed" if self.squash else self.kind


def standardise(block: Array, mean: Array, scale: Array, *, squash: bool = False) -> Array:
    """Return z = (block - mean) * scale, clipped at +-``CLIP`` or, squashed, asinh(z); float32 (B, d)."""
    on = arithmetic_of(block)
    shifted = block - on.cast(mean, on.xp.float32)
    shifted *= on.cast(scale, on.xp.float32)
    kept = on.xp.arcsinh(shifted, out=shifted) if squash else on.clip(shifted, -CLIP, CLIP)
    return on.cast(kept, on.xp.float32)


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
    def _squares(self) -> Array:
        """(L,) squared lengths of the landmarks."""
        return arithmetic_of(self.landmarks).xp.square(self.landmarks).sum(axis=1)

    def values(self, scores: Array) -> Array:
        """Return the (B, L) kernel between (B, p) scores and the landmarks, in (0, 1]."""
        on = arithmetic_of(scores)
        squared = on.xp.square(scores).sum(axis=1)[:, None] + self._squares
        squared -= 2 * on.product(scores, self.landmarks.T)
        on.clip(squared, 0)
        squared *= -self.width
        return on.xp.exp(squared, out=squared)

    def scores(self, scores: Array) -> Array:
        """Return (B, q) scores for (B, p) linear ones."""
        on = arithmetic_of(scores)
        out = on.empty((len(scores), self.basis.shape[1]), on.xp.float32)
        for first in range(0, len(scores), _ROWS):
            out[first : first + _ROWS] = on.product(self.values(scores[first : first + _ROWS]), self.basis)
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

    def scores(self, block: Array) -> Array:
        """Return the (B, p) float32 scores of a (B, d) block."""
        standard = standardise(block, self.mean, self.scale, squash=self.squash)
        standard -= self.center
        linear = arithmetic_of(block).product(standard, self.basis)
        return linear if self.kernel is None else self.kernel.scores(linear)

    def on(self, arithmetic: Arithmetic) -> Projection:
        """Return the projection with its arrays where ``scores`` of an arithmetic are wanted; sent once."""
        if arithmetic is CPU:
            return self
        if arithmetic not in self._sent:
            arrays = {name: arithmetic.send(array) for name, array in self.arrays().items()}
            self._sent[arithmetic] = type(self).from_arrays(arrays, squash=self.squash)
        return self._sent[arithmetic]

    @cached_property
    def _sent(self) -> dict[Arithmetic, Projection]:
        return {}

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


def fit_kernel(linear: Projection, landmarks: Array, sample: Array, components: int) -> Projection:
    """Return ``linear`` followed by a kernel on q <= ``components`` principal axes.

    Args:
        linear: the projection that makes the scores.
        landmarks: (L, p) scores of some training instances, not all the same.
        sample: (S, p) scores of the training instances that the principal axes are found on.
        components: axes wanted; those of no variance are left out.
    """
    on = arithmetic_of(sample)
    some = on.fetch(landmarks[:512]).astype(np.float64)
    squares = np.square(some).sum(axis=1)
    apart = squares[:, None] + squares - 2 * (some @ some.T)
    apart[apart <= _SAME * squares.max()] = 0  # rounding of the products
    median = float(np.median(apart[apart > 0])) if (apart > 0).any() else np.inf
    empty, width = np.zeros(0, dtype=np.float32), np.array([WIDTH / median], dtype=np.float32)
    kernel = Kernel(landmarks, on.send(width), empty, empty)
    between = on.double(kernel.values(landmarks))
    # Directions below the rounding of float32 kernels are noise that dividing by their root would blow up.
    between.reshape(-1)[:: len(between) + 1] += _NOISE * between.trace()
    lower = on.cholesky(between)
    points = on.solve_lower(lower, on.double(kernel.values(sample).T))
    mean = points.mean(axis=1)
    points -= mean[:, None]
    variances, axes = on.leading_eigenvectors(on.product(points, points.T) / points.shape[1], components)
    variances = on.fetch(variances)
    axes = axes[:, on.send(np.flatnonzero(variances > 1e-9 * max(variances[0], 1e-30)))]
    center, basis = on.product(mean, axes), on.solve_lower(lower, axes, transposed=True)
    center, basis = (on.fetch(on.cast(array, on.xp.float32)) for array in (center, basis))
    return replace(linear, kernel=Kernel(on.fetch(landmarks), width, center, basis))
