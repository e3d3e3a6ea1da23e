"""Gaussian inference over one latent vector: encoders, their product, decoders, and iterative refinement.

The model: z ~ N(0, I), and given it the components of every modality, N(decoder_m(z), diag(sigma_m^2)).

Source: Oshima, Suzuki, Matsuo, "Multimodal variational autoencoder with iterative amortised inference", 2024 (arXiv
    2410.11403), of which only the abstract was to be had; the equations are those of Suzuki, Nakayama, Matsuo, "Joint
    Multimodal Learning with Deep Generative Models", 2016 (JMVAE-kl) and Marino, Yue, Mandt, "Iterative Amortized
    Inference", ICML 2018.
Departs: the posterior of any subset is the product of the posteriors of its modalities over the prior's power, exact
    where they are independent given z (there a network of all modalities together); the refinement takes a step along
    the natural gradient, to which a network adds (there the network alone); sigma_m is learned for every component
    (there one fixed scale a modality).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = [
    "Gaussian",
    "GaussianDecoder",
    "GaussianEncoder",
    "Refinement",
    "bound_gradient",
    "divergence",
    "draw_noise",
    "evidence_bound",
    "product_of_posteriors",
    "refine",
]

LOG_VARIANCE = 15.0
"""Log variances are kept within plus and minus this, as in the public code of Marino et al."""

_NOISE_RATE = 10.0
"""How much faster than weights log variances of components are learned: they have further to go."""


class Gaussian(NamedTuple):
    """A Gaussian with a diagonal covariance for each instance.

    Args:
        mean: (B, d).
        log_variance: (B, d).
    """

    mean: Tensor
    log_variance: Tensor

    def detached(self) -> Gaussian:
        """Return the same one, through which no gradient flows."""
        return Gaussian(self.mean.detach(), self.log_variance.detach())

    def at(self, noise: Tensor) -> Tensor:
        """Return mean + deviation * noise."""
        return self.mean + (self.log_variance / 2).exp() * noise


def divergence(first: Gaussian, second: Gaussian) -> Tensor:
    """Return (B,) KL(first || second) in nats."""
    difference = second.log_variance - first.log_variance
    ratio = (first.log_variance.exp() + (first.mean - second.mean).square()) * (-second.log_variance).exp()
    return (difference + ratio - 1).sum(1) / 2


def product_of_posteriors(posteriors: Sequence[Gaussian], present: Tensor) -> Gaussian:
    """Return p(z) prod_m q_m(z | x_m) / p(z) over the modalities present, for the prior N(0, I).

    Its precision is 1 + sum_m (1 / var_m - 1). Where q_m is the posterior of its modality and modalities are
    independent given z, this is the posterior of all; of one modality it is q_m, of none the prior.

    Args:
        posteriors: K of them, with variances of at most 1; anything finite where absent.
        present: (B, K) bool.
    """
    precision = torch.ones_like(posteriors[0].mean)
    weighted = torch.zeros_like(precision)
    for m, posterior in enumerate(posteriors):
        own = (-posterior.log_variance).exp()
        has = present[:, m, None]
        precision = precision + (own - 1).masked_fill(~has, 0)
        weighted = weighted + (own * posterior.mean).masked_fill(~has, 0)
    return Gaussian(weighted / precision, -precision.log())


class GaussianEncoder(nn.Module):
    """The posterior q_m(z | x_m) of one modality: its components to mean and variance, the variance at most 1.

    mean = dropout(x) W + residual MLP, 1 / variance = 1 + softplus(MLP): of z a modality can only say more than the
    prior does.

    Args:
        start: (p, d) of the mean, a closed-form map.
        hidden: width of the MLP.
        dropout: share of components zeroed in training.
    """

    def __init__(self, start: Tensor, *, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        inputs, outputs = start.shape
        self.linear = nn.Parameter(start.clone())
        self.enter = nn.Linear(inputs, hidden)
        self.leave = nn.Linear(hidden, 2 * outputs)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)
        self.dropout = dropout

    def narrow(self, factor: float, modalities: int) -> None:
        """Start with evidence such that so many modalities together have a variance less by a factor above 1."""
        outputs = self.linear.shape[1]
        first = functional.softplus(self.leave.bias.detach()[outputs:])
        evidence = (factor * (1 + modalities * first) - 1) / max(1, modalities)
        with torch.no_grad():
            self.leave.bias[outputs:] = evidence + (-(-evidence).expm1()).log()  # softplus of it is the evidence

    def forward(self, components: Tensor) -> Gaussian:
        """Return the posterior of (B, p) components."""
        components = functional.dropout(components, self.dropout, self.training)
        residual, evidence = self.leave(functional.gelu(self.enter(components))).chunk(2, dim=1)
        return Gaussian(components @ self.linear + residual, -functional.softplus(evidence).log1p())


class GaussianDecoder(nn.Module):
    """p(x_m | z) of one modality: mean z W + residual MLP + bias, and a learned variance of each component.

    Args:
        start: (d, p) of the mean.
        intercept: (p,) of the mean.
        variance: (p,) of each component given z, at first.
        hidden: width of the MLP.
    """

    def __init__(self, start: Tensor, intercept: Tensor, variance: Tensor, hidden: int) -> None:
        super().__init__()
        latent, outputs = start.shape
        self.linear = nn.Parameter(start.clone())
        self.enter = nn.Linear(latent, hidden)
        self.leave = nn.Linear(hidden, outputs)
        nn.init.zeros_(self.leave.weight)
        self.leave.bias = nn.Parameter(intercept.clone())
        self.noise = nn.Parameter(variance.clamp_min(1e-6).log() / _NOISE_RATE)

    def forward(self, latent: Tensor) -> Tensor:
        """Return (..., p) means for (..., d) latent vectors."""
        residual: Tensor = self.leave(functional.gelu(self.enter(latent)))
        return latent @ self.linear + residual

    @property
    def log_variance(self) -> Tensor:
        """(p,) log variance of each component given the latent vector."""
        return (self.noise * _NOISE_RATE).clamp(-LOG_VARIANCE, LOG_VARIANCE)

    def log_likelihood(self, components: Tensor, latent: Tensor) -> Tensor:
        """Return (..., B) log p(x_m | z) in nats, of (B, p) components and (..., B, d) latent vectors."""
        log_variance = self.log_variance
        squares = (components - self.forward(latent)).square() * (-log_variance).exp()
        return -(squares + log_variance + math.log(2 * math.pi)).sum(-1) / 2


def evidence_bound(
    posterior: Gaussian,
    decoders: Sequence[GaussianDecoder],
    components: Sequence[Tensor],
    present: Tensor,
    noise: Tensor,
    *,
    beta: float = 1.0,
) -> Tensor:
    """Return (B,) the evidence lower bound of the modalities present, from some samples of the posterior.

    log p(x_m | z) summed over them at z = mean + deviation * noise, the mean over samples, less
    beta KL(posterior || N(0, I)).

    Args:
        posterior: of the instances.
        decoders: one for each modality.
        components: per modality (B, p_m), anything finite where absent.
        present: (B, K) bool.
        noise: (S, B, d) standard normal.
        beta: weight of the divergence.
    """
    latent = posterior.at(noise)
    prior = Gaussian(torch.zeros_like(posterior.mean), torch.zeros_like(posterior.log_variance))
    bound = -beta * divergence(posterior, prior)
    for m, (decoder, own) in enumerate(zip(decoders, components, strict=True)):
        bound = bound + decoder.log_likelihood(own, latent).mean(0).masked_fill(~present[:, m], 0)
    return bound


class Refinement(nn.Module):
    """One step of iterative inference: from a posterior and the gradient of its bound to a better posterior.

    mean + step_1 var g_mean + gate net, log variance + 2 step_2 g_log_variance + gate net: the natural gradient of a
    diagonal Gaussian at learned step sizes, to which a gated network adds what it makes of the posterior and of the
    gradient. The network starts at zero. Gradients are taken as numbers: none flows through them.

    Args:
        latent: d.
        hidden: width of the network.
        step: step size at first.
    """

    def __init__(self, latent: int, *, hidden: int, step: float = 0.2) -> None:
        super().__init__()
        self.log_step = nn.Parameter(torch.full((2, latent), math.log(step)))
        last = nn.Linear(hidden, 4 * latent)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        layers = (nn.Linear(4 * latent, hidden), nn.ELU(), nn.Linear(hidden, hidden), nn.ELU(), last)
        self.net = nn.Sequential(*layers)

    def forward(self, posterior: Gaussian, gradient: Gaussian) -> Gaussian:
        """Return the next posterior.

        Args:
            posterior: the present one.
            gradient: of the bound with respect to its mean and its log variance, detached.
        """
        natural = torch.cat([posterior.log_variance.exp() * gradient.mean, 2 * gradient.log_variance], dim=1)
        seen = functional.layer_norm(natural, natural.shape[1:])
        change, gate = self.net(torch.cat([*posterior, seen], dim=1)).chunk(2, dim=1)
        stepped = natural * self.log_step.exp().flatten()
        # A bounded step: a bad gradient must not throw the posterior out of reach of the next one.
        moved = functional.hardtanh(stepped, -1, 1) + torch.sigmoid(gate) * change
        mean, log_variance = moved.chunk(2, dim=1)
        return Gaussian(
            posterior.mean + mean, (posterior.log_variance + log_variance).clamp(-LOG_VARIANCE, LOG_VARIANCE)
        )


def bound_gradient(
    posterior: Gaussian,
    decoders: Sequence[GaussianDecoder],
    components: Sequence[Tensor],
    present: Tensor,
    noise: Tensor,
    *,
    beta: float = 1.0,
) -> Gaussian:
    """Return the gradient of ``evidence_bound`` with respect to the posterior, detached; arguments as there."""
    with torch.enable_grad():
        mean, log_variance = (part.detach().requires_grad_() for part in posterior)
        bound = evidence_bound(Gaussian(mean, log_variance), decoders, components, present, noise, beta=beta)
        return Gaussian(*torch.autograd.grad(bound.sum(), [mean, log_variance]))


def draw_noise(posterior: Gaussian, samples: int) -> Tensor:
    """Return (S, B, d) standard normal noise in opposite pairs, from torch's default generator.

    Of a linear decoder the gradient with respect to the mean is then exact.

    Args:
        posterior: of the shape wanted.
        samples: S, rounded up to a whole number of pairs.
    """
    half = torch.randn(
        (samples + 1) // 2, *posterior.mean.shape, dtype=posterior.mean.dtype, device=posterior.mean.device
    )
    return torch.cat([half, -half])


def refine(
    posterior: Gaussian,
    refinement: Refinement,
    decoders: Sequence[GaussianDecoder],
    components: Sequence[Tensor],
    present: Tensor,
    *,
    iterations: int,
    samples: int,
    beta: float = 1.0,
) -> list[Gaussian]:
    """Return the posteriors of ``iterations`` steps of refinement, the given one first.

    A step starts from the numbers of the last one: each is trained to better the bound by itself, and no gradient
    flows back through several. Each draws noise of its own: one that saw the noise by which it is evaluated would
    learn to shrink the posterior onto it.

    Args:
        posterior: to start from.
        refinement: the step.
        decoders: as for ``evidence_bound``, as are those that follow.
        components: see there.
        present: see there.
        iterations: 0 or more.
        samples: of the posterior, for each gradient.
        beta: see there.
    """
    found = [posterior]
    for _ in range(iterations):
        start = found[-1].detached()
        noise = draw_noise(start, samples)
        gradient = bound_gradient(start, decoders, components, present, noise, beta=beta)
        found.append(refinement(start, gradient))
    return found
