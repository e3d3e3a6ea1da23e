"""CLUB: an upper bound of the mutual information of two vectors, to be minimised."""

from __future__ import annotations

import math

from torch import Tensor, nn

from pmrl_cli.terms.contrast import masked_mean

__all__ = ["ConditionalGaussian", "information_bound", "log_density"]


class ConditionalGaussian(nn.Module):
    """q(y | x), normal with a mean and a diagonal variance that two networks read off x.

    Args:
        given: columns of x.
        predicted: columns of y.
        hidden: units of each network's hidden layer.
    """

    def __init__(self, given: int, predicted: int, hidden: int) -> None:
        super().__init__()
        self.mean = nn.Sequential(nn.Linear(given, hidden), nn.ReLU(), nn.Linear(hidden, predicted))
        # Bounded, as in the source: a variance that could vanish would make the bound infinite.
        self.log_variance = nn.Sequential(
            nn.Linear(given, hidden), nn.ReLU(), nn.Linear(hidden, predicted), nn.Tanh()
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (b, predicted) means and log variances for (b, given)."""
        mean: Tensor = self.mean(x)
        log_variance: Tensor = self.log_variance(x)
        return mean, log_variance


def log_density(mean: Tensor, log_variance: Tensor, y: Tensor) -> Tensor:
    """Return (b,) log q(y | x) in nats: the sum over columns.

    Args:
        mean: (b, d).
        log_variance: (b, d).
        y: (b, d).
    """
    terms = (y - mean).square() / log_variance.exp() + log_variance + math.log(2 * math.pi)
    return -terms.sum(1) / 2


def information_bound(mean: Tensor, log_variance: Tensor, y: Tensor, has: Tensor) -> Tensor:
    """Return CLUB, mean over i of log q(y_i | x_i) - mean over j of log q(y_j | x_i), in nats.

    Over all j, not one drawn at random: for a normal density the mean over j asks only for the mean and the mean
    square of y, so it costs no more. It bounds the mutual information from above where q is p(y | x).

    Args:
        mean: (b, d) of q(y | x_i).
        log_variance: (b, d).
        y: (b, d), anything finite where ``has`` is False.
        has: (b,) bool.

    Returns: scalar; 0 where no vector is there.

    Source: Cheng et al., "CLUB: A Contrastive Log-ratio Upper Bound of Mutual Information", ICML 2020; departs from
        the code of FCID, which averages over columns where densities ask for the sum, and divides by one mean
        variance of all columns.
    """
    y = y.masked_fill(~has[:, None], 0)
    count = has.sum().clamp_min(1)
    first, second = y.sum(0) / count, y.square().sum(0) / count
    others = second - 2 * mean * first + mean.square()
    differences = (others - (y - mean).square()) / log_variance.exp()
    return masked_mean(differences.sum(1) / 2, has)
