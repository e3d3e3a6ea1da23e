"""Optimal transport between the mixtures of several modalities: mixtures, cost, plan, and what they are to a loss.

A mixture of K diagonal Gaussians is fitted to the vectors of each modality, component j of all modalities grown from
the same instances; one plan with a marginal for each modality then gives which components belong together.

Source: "DecAlign: Hierarchical Cross-Modal Alignment for Decoupled Multimodal Representation Learning", ICLR 2026
    (arXiv 2503.11892) and its public code; the rounding of a plan: Altschuler, Weed, Rigollet, "Near-linear time
    approximation algorithms for optimal transport via Sinkhorn iteration", NeurIPS 2017.
Departs: any number of modalities and missing ones (there three, all there); the plan in the log domain, at a
    regularisation relative to the cost, annealed, then rounded to its marginals (there exp(-cost / 0.1), clamped);
    the cost alone, which is never negative (there plus the entropy of the plan); memberships and plan are held while
    the gradient is taken (there it runs through all iterations); the mixtures do not depend on the order of the
    instances (there they start at the rows linspace(0, N - 1, K)).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "Mixture",
    "bures_wasserstein",
    "fit_mixtures",
    "prototype_cost",
    "transport_cost",
    "transport_plan",
]

VARIANCE_FLOOR = 1e-4
"""Of a component's variance, as published."""

REGULARISATION = 0.02
"""Of the plan, relative to the mean cost: identical mixtures then cost next to nothing, without a debiasing term."""

SINKHORN_ROUNDS = 30
ENTRIES = 10**6
"""Of a joint cost. Where K^k is more, the plans of all pairs of modalities take its place."""

_EM_ROUNDS = 5
_GROUPING_ROUNDS = 5
_NOTHING = -1e30
"""Log of no mass: finite, so that differences of it are no NaN."""


class Mixture(NamedTuple):
    """Diagonal Gaussians of one modality.

    Args:
        weights: (K,) share of each component, detached; they sum to 1.
        means: (K, d).
        variances: (K, d), ``VARIANCE_FLOOR`` or more.
        membership: (B, K) posterior of each instance, detached; zero rows where it lacks the modality.
    """

    weights: Tensor
    means: Tensor
    variances: Tensor
    membership: Tensor


def _group(vectors: Tensor, present: Tensor, groups: int) -> Tensor:
    """Return (B,) which of K groups each instance is in, by its modalities together: farthest first, then k-means.

    The squared distance of two instances is the mean over the modalities that both have; the first seed is the one
    farthest from the middle. Nothing is drawn, and the order of the instances changes nothing (but in ties).
    """
    known = vectors.masked_fill(~present[..., None], 0)
    mask = present.to(vectors.dtype)

    def distances(centres: Tensor, has: Tensor) -> Tensor:
        """Return (B, C) distances to (C, K, d) centres that have some modalities (C, K)."""
        shared = mask @ has.T
        squares = (known.square().sum(2) @ has.T) + mask @ (centres.square().sum(2) * has).T
        products = torch.einsum("bkd,ckd->bc", known, centres * has[..., None])
        return ((squares - 2 * products) / shared.clamp_min(1)).clamp_min(0)

    whole = known.sum(0) / mask.sum(0).clamp_min(1)[:, None]
    nearest = distances(whole[None], torch.ones_like(mask[:1]))[:, 0]
    anything = present.any(1)
    seeds: list[Tensor] = []
    for _ in range(groups):
        seed = nearest.masked_fill(~anything, -1).argmax()
        seeds.append(seed)
        here = distances(known[seed][None], mask[seed][None])[:, 0]
        # Two instances that share no modality are at no distance that says anything.
        here = here.masked_fill(mask @ mask[seed] == 0, torch.inf)
        nearest = here if len(seeds) == 1 else torch.minimum(nearest, here)
    picked = torch.stack(seeds)
    centres, has = known[picked], mask[picked]
    for _ in range(_GROUPING_ROUNDS):
        far = distances(centres, has).masked_fill(mask @ has.T == 0, torch.inf)
        group = torch.nn.functional.one_hot(far.argmin(1), groups).to(vectors.dtype) * anything[:, None]
        count = group.T @ mask
        means = torch.einsum("bc,bkd->ckd", group, known) / count.clamp_min(1)[..., None]
        centres = torch.where(count[..., None] > 0, means, centres)
        has = torch.maximum(has, (count > 0).to(has.dtype))
    return far.argmin(1)


def _log_density(vectors: Tensor, weights: Tensor, means: Tensor, variances: Tensor) -> Tensor:
    precision = variances.reciprocal()
    squares = (
        vectors.square() @ precision.T - 2 * vectors @ (means * precision).T + (means.square() * precision).sum(1)
    )
    constant = variances.log().sum(1) + vectors.shape[1] * math.log(2 * math.pi)
    return weights.clamp_min(1e-8).log() - (squares + constant) / 2


def _moments(vectors: Tensor, has: Tensor, membership: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return weights, means and variances of components from memberships (B, K); both zero where absent."""
    mass = membership.sum(0)
    weights = mass / mass.sum().clamp_min(1e-8)
    # A component without members is the whole of the modality: of no weight, and without a NaN.
    members = torch.where(mass < 1e-6, has[:, None].to(mass.dtype), membership)
    shares = members / members.sum(0).clamp_min(1e-6)
    # From the middle: of large numbers the difference of squares would be what rounding leaves.
    middle = vectors.sum(0).detach() / has.sum().clamp_min(1)
    means = shares.T @ (vectors - middle)
    variances = shares.T @ (vectors - middle).square() - means.square()
    return weights, means + middle, variances.clamp_min(VARIANCE_FLOOR)


def fit_mixtures(vectors: Tensor, present: Tensor, components: int) -> list[Mixture]:
    """Fit one mixture for each modality.

    Memberships are found by EM without a gradient; means and variances are those of the memberships found, and
    differentiable in the vectors. Component j of every modality starts from the same group of instances.

    Args:
        vectors: (B, K, d), anything finite where absent.
        present: (B, K) bool.
        components: of each mixture; no more than there are instances.
    """
    known = vectors.masked_fill(~present[..., None], 0)
    components = max(1, min(components, len(vectors)))
    with torch.no_grad():
        start = torch.nn.functional.one_hot(_group(known, present, components), components).to(vectors.dtype)
    mixtures = []
    for m in range(vectors.shape[1]):
        of_modality, has = known[:, m], present[:, m]
        with torch.no_grad():
            membership = start * has[:, None]
            for _ in range(_EM_ROUNDS):
                density = _log_density(of_modality, *_moments(of_modality, has, membership))
                membership = density.softmax(1) * has[:, None]
        mixtures.append(Mixture(*_moments(of_modality, has, membership), membership))
    return mixtures


def bures_wasserstein(first: Mixture, second: Mixture) -> Tensor:
    """Return (K, K) squared distances of components, divided by d.

    ||mu_a - mu_b||^2 + ||sqrt(var_a) - sqrt(var_b)||^2, for diagonal covariances the squared 2-Wasserstein distance.
    The mean over dimensions as in the public code; the paper has the sum.
    """
    ends = [torch.cat([mixture.means, mixture.variances.sqrt()], 1) for mixture in (first, second)]
    differences = ends[0][:, None] - ends[1][None]
    return differences.square().sum(2) / first.means.shape[1]


def _over_others(tensor: Tensor, axis: int) -> Tensor:
    return tensor.movedim(axis, 0).flatten(1)


def _along(vector: Tensor, axis: int, axes: int) -> Tensor:
    return vector.view([-1 if a == axis else 1 for a in range(axes)])


def transport_plan(cost: Tensor, marginals: Sequence[Tensor], regularisation: float = REGULARISATION) -> Tensor:
    """Return the entropic plan of a cost with k axes, rounded so that its marginals are those wanted.

    Sinkhorn's iteration in the log domain, the regularisation annealed from the mean cost down.

    Args:
        cost: (K_1, ..., K_k), at least 0.
        marginals: k of them, (K_a,), each summing to 1.
        regularisation: of the plan, relative to the mean cost.

    Returns: like cost; no gradient flows through it.
    """
    axes = cost.ndim
    with torch.no_grad():
        scale = cost.mean().clamp_min(torch.finfo(cost.dtype).tiny)
        logs = [m.log().clamp_min(_NOTHING) for m in marginals]
        potentials = [torch.zeros_like(m) for m in marginals]
        for turn in range(SINKHORN_ROUNDS):
            # Half of the rounds come down, half stay.
            level = regularisation ** min(1.0, 2 * turn / SINKHORN_ROUNDS)
            epsilon = scale * level
            for axis in range(axes):
                total = sum(_along(p, a, axes) for a, p in enumerate(potentials) if a != axis)
                reach = _over_others((total - cost) / epsilon, axis).logsumexp(1)
                potentials[axis] = epsilon * (logs[axis] - reach)
        exponent = (sum(_along(p, a, axes) for a, p in enumerate(potentials)) - cost) / epsilon
        return _rounded(exponent.exp(), marginals)


def _rounded(plan: Tensor, marginals: Sequence[Tensor]) -> Tensor:
    """Return a plan whose marginals are right to rounding: what is too much is scaled down, what lacks is spread."""
    axes = plan.ndim
    for axis, wanted in enumerate(marginals):
        found = _over_others(plan, axis).sum(1)
        plan = plan * _along((wanted / found.clamp_min(torch.finfo(plan.dtype).tiny)).clamp_max(1), axis, axes)
    lacking = [(wanted - _over_others(plan, axis).sum(1)).clamp_min(0) for axis, wanted in enumerate(marginals)]
    total = lacking[0].sum()
    rest = total.new_ones([1] * axes)
    for axis, part in enumerate(lacking):
        rest = rest * _along(part / part.sum().clamp_min(torch.finfo(plan.dtype).tiny), axis, axes)
    return plan + total * rest


def transport_cost(mixtures: Sequence[Mixture]) -> Tensor:
    """Return the cost of transport between all mixtures, divided by the number of their pairs.

    <T, C> with C[j, l, ...] the sum of ``bures_wasserstein`` over pairs of modalities. Where C would have more than
    ``ENTRIES`` numbers, each pair has a plan of its own, whose costs add up to no more than that of a joint plan.
    The plan is held while the gradient is taken, which at the optimum is the gradient of the regularised cost.

    Args:
        mixtures: those of modalities that some instance has.

    Returns: scalar, at least 0; 0 for fewer than two mixtures.
    """
    axes = len(mixtures)
    pairs = list(combinations(range(axes), 2))
    if not pairs:
        return mixtures[0].means.sum() * 0
    costs = {pair: bures_wasserstein(mixtures[pair[0]], mixtures[pair[1]]) for pair in pairs}
    if math.prod(len(mixture.weights) for mixture in mixtures) > ENTRIES:
        plans = ((c, transport_plan(c.detach(), [mixtures[m].weights for m in pair])) for pair, c in costs.items())
        return torch.stack([(plan * c).sum() for c, plan in plans]).mean()
    joint = sum(
        c.view([c.shape[pair.index(a)] if a in pair else 1 for a in range(axes)]) for pair, c in costs.items()
    )
    assert isinstance(joint, Tensor)
    plan = transport_plan(joint.detach(), [mixture.weights for mixture in mixtures])
    return (plan * joint).sum() / len(pairs)


def prototype_cost(vectors: Tensor, present: Tensor, mixtures: Sequence[Mixture]) -> Tensor:
    """Return how far the vectors of a modality are from the means of the components of another that they belong to.

    The mean over ordered pairs (a, b) of modalities, and over the instances that have a, of
    sum_j membership_a[i, j] mean_d (s_a[i] - mu_b[j])^2.

    Args:
        vectors: (B, K, d), anything finite where absent.
        present: (B, K) bool.
        mixtures: one for each modality.
    """
    known = vectors.masked_fill(~present[..., None], 0)
    there = present.any(0)
    values, counted = [], []
    for a in range(vectors.shape[1]):
        for b in range(vectors.shape[1]):
            if a == b:
                continue
            differences = (known[:, a, None] - mixtures[b].means[None]).square().mean(2)
            rows = (mixtures[a].membership * differences).sum(1)
            values.append(rows.sum() / present[:, a].sum().clamp_min(1))
            counted.append(there[a] & there[b])
    if not values:
        return known[:0].sum()
    mask = torch.stack(counted)
    return (torch.stack(values) * mask).sum() / mask.sum().clamp_min(1)
