"""Ridge regression whose strength and residual variance are those of instances that were left out."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Readout", "ridge_readout"]

STRENGTHS = tuple(10.0 ** (power / 2) for power in range(-6, 9))
"""Of the ridge, relative to the mean eigenvalue of the inputs' covariance: the last leaves nothing but the mean."""


class Readout(NamedTuple):
    """An affine map of (d,) inputs to (p,) outputs.

    Args:
        weights: (d, p).
        intercept: (p,).
        variance: (p,) mean square of the leave-one-out residuals.
    """

    weights: Tensor
    intercept: Tensor
    variance: Tensor


def ridge_readout(inputs: Tensor, outputs: Tensor, importance: Tensor) -> Readout:
    """Return a ridge regression whose strength is chosen by leave-one-out error, in float64.

    W = argmin sum_i |y_i - b - W^T x_i|^2 + n strength s |W|^2, with s the mean eigenvalue of the inputs' covariance.
    The residual of an instance that is left out is r_i / (1 - h_i), h_i its leverage (the intercept's 1 / n in it).
    Of all strengths the largest is taken whose error is within a standard error of the least: inputs that are
    themselves fitted to these instances look better on them than they are.

    Args:
        inputs: (n, d).
        outputs: (n, p).
        importance: (p,) weight of the squared error of each output.

    Source: Allen, "The Relationship Between Variable Selection and Data Augmentation and a Method for Prediction",
        Technometrics 1974 (PRESS); the standard error: Breiman et al., "Classification and Regression Trees", 1984.
    """
    n, d = inputs.shape
    x, y = inputs.double(), outputs.double()
    if n < 3:  # nothing can be left out
        return Readout(y.new_zeros(d, y.shape[1]), y.new_zeros(y.shape[1]), y.new_ones(y.shape[1]))
    x_mean, y_mean = x.mean(0), y.mean(0)
    x, y = x - x_mean, y - y_mean
    # The axes of the inputs; those of no variance are out of reach at every strength.
    values, axes = torch.linalg.eigh(x.T @ x)
    values, scores = values.clamp_min(0), x @ axes
    scale = values.sum().clamp_min(1e-30) / d
    products = scores.T @ y

    def left_out(strength: float) -> Tensor:
        """Return the (n, p) squares of the residuals."""
        inverse = 1 / (values + strength * scale)
        leverage = scores.square() @ inverse + 1 / n
        residuals: Tensor = (y - scores @ (inverse[:, None] * products)) / (1 - leverage).clamp_min(1e-6)[:, None]
        return residuals.square()

    errors = [left_out(strength) @ importance.double() for strength in STRENGTHS]
    best = min(errors, key=lambda one: float(one.mean()))
    most = float(best.mean() + best.std() / n**0.5)
    strength = max(one for one, error in zip(STRENGTHS, errors, strict=True) if float(error.mean()) <= most)
    weights = axes @ (products / (values + strength * scale)[:, None])
    return Readout(weights, y_mean - x_mean @ weights, left_out(strength).mean(0))
