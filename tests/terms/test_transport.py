"""Transport between mixtures: marginals, the optimum of a linear programme, gradients by loops."""

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from pmrl_cli.terms import transport
from pmrl_cli.terms.transport import (
    Mixture,
    bures_wasserstein,
    fit_mixtures,
    prototype_cost,
    transport_cost,
    transport_plan,
)


def draws(rows=24, modalities=3, dim=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = 3 * torch.randn(3, 1, dim, generator=generator, dtype=torch.float64)
    vectors = centres[torch.arange(rows) % 3] + torch.randn(rows, modalities, dim, generator=generator).double()
    present = torch.rand(rows, modalities, generator=generator) < 0.7
    present[:6] = True
    return vectors, present


def marginal(plan, axis):
    return plan.movedim(axis, 0).flatten(1).sum(1)


@pytest.mark.parametrize("shape", [(4, 5), (3, 3, 3), (3, 2, 4, 3)])
def test_marginals_are_those_wanted_and_the_cost_is_nearly_the_least(shape):
    generator = torch.Generator().manual_seed(1)
    cost = torch.rand(shape, generator=generator, dtype=torch.float64)
    wanted = [torch.rand(k, generator=generator, dtype=torch.float64) + 0.1 for k in shape]
    wanted = [w / w.sum() for w in wanted]
    plan = transport_plan(cost, wanted)
    assert (plan >= 0).all()
    for axis, share in enumerate(wanted):
        assert (marginal(plan, axis) - share).abs().max() < 1e-12
    entries = list(itertools.product(*(range(k) for k in shape)))
    constraints = np.array([[e[a] == j for e in entries] for a, k in enumerate(shape) for j in range(k)], dtype=float)
    solved = linprog(cost.flatten().numpy(), A_eq=constraints, b_eq=np.concatenate([w.numpy() for w in wanted]))
    assert solved.fun - 1e-9 <= (plan * cost).sum().item() < solved.fun + 0.03 * cost.mean().item()


def test_single_precision_keeps_the_marginals_too():
    generator = torch.Generator().manual_seed(2)
    cost = 50 * torch.rand(7, 7, 7, generator=generator)
    wanted = [torch.rand(7, generator=generator).softmax(0) for _ in range(3)]
    plan = transport_plan(cost, wanted)
    assert max((marginal(plan, axis) - w).abs().max().item() for axis, w in enumerate(wanted)) < 1e-5


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_a_marginal_without_mass_and_any_scale_of_cost(scale):
    """Regression: exp(-cost / 0.1) clamped at 1e-30 forgets every cost above 7, and sees none below .01."""
    cost = scale * torch.tensor([[0.0, 1.0, 2.0], [1.0, 0.0, 1.0], [2.0, 1.0, 0.0]])
    wanted = torch.tensor([0.5, 0.5, 0.0])
    plan = transport_plan(cost, [wanted, wanted])
    assert plan.isfinite().all()
    torch.testing.assert_close(plan, torch.diag(wanted), atol=0.01, rtol=0)


def test_identical_mixtures_cost_next_to_nothing_and_never_less_than_nothing():
    """Regression: with the entropy of the plan in it the objective can be negative."""
    vectors, _ = draws()
    same = vectors[:, :1].expand(-1, 3, -1)
    present = torch.ones(24, 3, dtype=torch.bool)
    mixtures = fit_mixtures(same, present, 3)
    apart = fit_mixtures(vectors + torch.tensor([0.0, 4.0, -4.0])[:, None], present, 3)
    assert 0 <= transport_cost(mixtures) < 1e-6 * transport_cost(apart)
    identical = transport_cost([mixtures[0]] * 3)
    assert 0 <= identical < 1e-6


def mixture_loops(x, rows, membership):
    mass = membership.sum(0)
    means = [sum(membership[i, j] * x[i] for i in rows) / mass[j] for j in range(len(mass))]
    variances = [sum(membership[i, j] * (x[i] - means[j]) ** 2 for i in rows) / mass[j] for j in range(len(mass))]
    return mass / mass.sum(), means, [v.clamp_min(1e-4) for v in variances]


def test_value_and_gradient_are_the_formula_for_held_memberships_and_plan():
    vectors, present = draws()
    held = [m.membership for m in fit_mixtures(vectors, present, 3)]

    def found(x):
        mixtures = fit_mixtures(x, present, 3)
        return transport_cost(mixtures) + prototype_cost(x, present, mixtures)

    def loops(x):
        parts = [mixture_loops(x[:, m], [i for i in range(24) if present[i, m]], held[m]) for m in range(3)]
        cost, pairs = [], list(itertools.combinations(range(3), 2))
        for index in itertools.product(range(3), repeat=3):
            total = 0.0
            for a, b in pairs:
                (_, means_a, var_a), (_, means_b, var_b) = parts[a], parts[b]
                difference = (means_a[index[a]] - means_b[index[b]]) ** 2
                spread = var_a[index[a]] + var_b[index[b]] - 2 * torch.sqrt(var_a[index[a]] * var_b[index[b]])
                total = total + (difference + spread).mean()
            cost.append(total)
        joint = torch.stack(cost).view(3, 3, 3)
        plan = transport_plan(joint.detach(), [weights for weights, _, _ in parts])
        value = (plan * joint).sum() / 3
        local = []
        for a, b in itertools.permutations(range(3), 2):
            rows = [i for i in range(24) if present[i, a]]
            terms = [held[a][i, j] * ((x[i, a] - parts[b][1][j]) ** 2).mean() for i in rows for j in range(3)]
            local.append(sum(terms) / len(rows))
        return value + sum(local) / len(local)

    outcomes = []
    for function in (found, loops):
        leaf = vectors.clone().requires_grad_()
        value = function(leaf)
        value.backward()
        outcomes.append((value.detach(), leaf.grad))
    torch.testing.assert_close(*(value for value, _ in outcomes))
    torch.testing.assert_close(*(gradient for _, gradient in outcomes), atol=1e-9, rtol=1e-6)
    assert (outcomes[0][1][~present] == 0).all()


def test_the_cost_is_the_bures_wasserstein_distance_of_diagonal_gaussians():
    first, second = (
        Mixture(torch.ones(1), torch.tensor([[m]]), torch.tensor([[v]]), torch.ones(1, 1))
        for m, v in ((0.0, 4.0), (3.0, 1.0))
    )
    assert bures_wasserstein(first, second).item() == pytest.approx(9 + (2 - 1) ** 2)


def test_the_order_of_instances_changes_nothing():
    """Regression: seeds at fixed rows made the mixtures depend on the order of a batch."""
    vectors, present = draws()
    order = torch.randperm(24, generator=torch.Generator().manual_seed(5))
    one, other = (fit_mixtures(x, p, 3) for x, p in ((vectors, present), (vectors[order], present[order])))
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a.means, b.means)
        torch.testing.assert_close(a.membership[order], b.membership)


def test_component_j_of_every_modality_holds_the_same_instances():
    vectors, _ = draws(rows=60)
    mixtures = fit_mixtures(vectors * torch.tensor([1.0, -2.0, 5.0])[:, None], torch.ones(60, 3, dtype=torch.bool), 3)
    groups = [mixture.membership.argmax(1) for mixture in mixtures]
    assert (groups[0] == groups[1]).float().mean() > 0.9
    assert (groups[0] == groups[2]).float().mean() > 0.9
    assert len(groups[0].unique()) == 3


def test_many_modalities_are_transported_pair_by_pair(monkeypatch):
    vectors, present = draws(modalities=4)
    mixtures = fit_mixtures(vectors, present, 3)
    joint = transport_cost(mixtures)
    monkeypatch.setattr(transport, "ENTRIES", 10)
    pairwise = transport_cost(mixtures)
    assert 0 < pairwise <= joint * 1.02
    leaf = vectors.clone().requires_grad_()
    transport_cost(fit_mixtures(leaf, present, 3)).backward()
    assert leaf.grad.isfinite().all()


@pytest.mark.parametrize(
    "case", ["fewer instances than components", "identical", "one modality", "an empty modality"]
)
def test_edges_are_finite(case):
    vectors, present = draws(rows=8)
    present[:] = True
    if case == "fewer instances than components":
        vectors, present = vectors[:2], present[:2]
    if case == "identical":
        vectors = vectors[:1, :1].expand(8, 3, 4)
    if case == "one modality":
        vectors, present = vectors[:, :1], present[:, :1]
    if case == "an empty modality":
        present[:, 2] = False
    leaf = vectors.clone().requires_grad_()
    mixtures = fit_mixtures(leaf, present, 5)
    value = transport_cost(mixtures) + prototype_cost(leaf, present, mixtures)
    value.backward()
    assert value.isfinite()
    assert value >= 0
    assert leaf.grad.isfinite().all()


def test_values_are_what_the_public_code_gives():
    # _gaussian_cost, _gmm_log_prob, _sample_to_proto_cost and _multi_marginal_sinkhorn (5,000 rounds: after the 50 of
    # its default it has not converged) of the authors' model.py on these, in float64; it adds 1e-8 under roots and in
    # the denominators of the rounds.
    index = torch.arange(12, dtype=torch.float64).reshape(4, 3)
    axes = torch.arange(4, dtype=torch.float64)
    samples = (torch.arange(90, dtype=torch.float64).reshape(10, 3, 3) * 1.3 + 0.5).cos()
    mixtures = []
    for m in range(3):
        means = (index * (0.3 + 0.2 * m) + m).sin()
        variances = 0.2 + 0.1 * (index * (0.5 + 0.3 * m)).cos().abs()
        weights = (axes * (m + 1)).sin().softmax(0)
        membership = transport._log_density(samples[:, m], weights, means, variances).softmax(1)
        mixtures.append(Mixture(weights, means, variances, membership))
    first, second, third = mixtures
    costs = [bures_wasserstein(a, b) for a, b in ((first, second), (first, third), (second, third))]
    assert float(costs[0].sum()) == pytest.approx(15.647348798148707, rel=1e-6)
    assert float(second.membership.square().sum()) == pytest.approx(8.151722771343996, rel=1e-9)
    everywhere = torch.ones(10, 3, dtype=torch.bool)
    assert float(prototype_cost(samples, everywhere, mixtures)) == pytest.approx(1.1477406458980688, rel=1e-9)
    joint = costs[0][:, :, None] + costs[1][:, None] + costs[2][None]
    plan = transport_plan(joint, [mixture.weights for mixture in mixtures], 0.1 / float(joint.mean()))
    objective = (plan * joint).sum() + 0.1 * (plan * (plan.clamp_min(1e-300).log() - 1)).sum()
    # Theirs is not at its marginals; ours is, after 30 rounds and a rounding.
    assert float(objective) == pytest.approx(0.9451461887633084, rel=0.03)
