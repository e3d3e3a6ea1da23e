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
    """Return the ridge regression whose leave-one-out error is least, in float64.

    W = argmin sum_i |y_i - b - W^T x_i|^2 + n strength s |W|^2, with s the mean eigenvalue of the inputs' covariance.
    The residual of an instance that is left out is r_i / (1 - h_i), h_i its leverage (the intercept's 1 / n in it).

    Args:
        inputs: (n, d).
        outputs: (n, p).
        importance: (p,) weight of the squared error of each output.

    Source: Allen, "The Relationship Between Variable Selection and Data Augmentation and a Method for Prediction",
        Technometrics 1974 (PRESS).
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
    scale = values.sum().clamp_min(torch.finfo(values.dtype).tiny) / d
    products = scores.T @ y

    def left_out(strength: float) -> tuple[Tensor, float]:
        inverse = 1 / (values + strength * scale)
        leverage = scores.square() @ inverse + 1 / n
        residuals = (y - scores @ (inverse[:, None] * products)) / (1 - leverage).clamp_min(1e-6)[:, None]
        squares = residuals.square().mean(0)
        return squares, float(squares @ importance.double())

    strength = min(STRENGTHS, key=lambda one: left_out(one)[1])
    weights = axes @ (products / (values + strength * scale)[:, None])
    return Readout(weights, y_mean - x_mean @ weights, left_out(strength)[0])
