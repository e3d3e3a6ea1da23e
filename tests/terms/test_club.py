"""CLUB: the bound by loops, against the true information of normal vectors, and averaged over the right axis."""

import math

import pytest
import torch

from pmrl_cli.terms.club import ConditionalGaussian, information_bound, log_density


def by_loops(mean, log_variance, y, has):
    rows = [i for i in range(len(y)) if has[i]]

    def density(i, j):
        total = y.new_zeros(())
        for d in range(y.shape[1]):
            variance = log_variance[i, d].exp()
            total = total - ((y[j, d] - mean[i, d]) ** 2 / variance + log_variance[i, d] + math.log(2 * math.pi)) / 2
        return total

    terms = [density(i, i) - sum(density(i, j) for j in rows) / len(rows) for i in rows]
    return sum(terms) / len(rows)


def test_value_and_gradient_are_those_of_the_loops():
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(7, 3, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(3)]
    has = torch.tensor([1, 1, 0, 1, 1, 0, 1], dtype=torch.bool)
    value = information_bound(*tensors, has)
    expected = by_loops(*tensors, has)
    assert float(value.detach()) == pytest.approx(float(expected.detach()), abs=1e-12)
    found = torch.autograd.grad(value, tensors)
    for one, other in zip(found, torch.autograd.grad(expected, tensors), strict=True):
        assert (one - other).abs().max() < 1e-12


def test_log_density_is_that_of_the_normal_distribution():
    generator = torch.Generator().manual_seed(1)
    mean, log_variance, y = torch.randn(3, 5, 4, generator=generator, dtype=torch.float64)
    normal = torch.distributions.Normal(mean, (log_variance / 2).exp())
    assert (log_density(mean, log_variance, y) - normal.log_prob(y).sum(1)).abs().max() < 1e-12


def test_with_the_true_density_it_bounds_the_information_of_a_normal_pair_closely():
    # y = x + noise of variance s: I(x; y) = d/2 log(1 + 1/s). CLUB with p(y | x) is d/s exactly in expectation.
    generator = torch.Generator().manual_seed(2)
    dim, variance = 8, 4.0
    x = torch.randn(20_000, dim, generator=generator)
    y = x + variance**0.5 * torch.randn(20_000, dim, generator=generator)
    bound = float(
        information_bound(x, torch.full_like(x, math.log(variance)), y, torch.ones(len(x), dtype=torch.bool))
    )
    assert bound == pytest.approx(dim / variance, rel=0.05)
    assert bound >= dim / 2 * math.log(1 + 1 / variance)


def test_more_columns_bound_more_and_more_instances_do_not():
    # The authors' mi_est takes the mean over columns and then the sum over the batch: B/D times the bound.
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(400, 1, generator=generator)
    y = x + torch.randn(400, 1, generator=generator)
    has = torch.ones(400, dtype=torch.bool)
    once = float(information_bound(x, torch.zeros_like(x), y, has))
    twice_as_wide = float(information_bound(x.repeat(1, 2), torch.zeros(400, 2), y.repeat(1, 2), has))
    twice_as_many = float(information_bound(x.repeat(2, 1), torch.zeros(800, 1), y.repeat(2, 1), has.repeat(2)))
    assert twice_as_wide == pytest.approx(2 * once, rel=1e-5)
    assert twice_as_many == pytest.approx(once, rel=1e-5)


def test_it_falls_to_nothing_for_independent_vectors():
    generator = torch.Generator().manual_seed(4)
    torch.manual_seed(0)
    model = ConditionalGaussian(6, 6, 16)
    x, y = torch.randn(2, 4000, 6, generator=generator)
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(100):
        optimiser.zero_grad()
        (-log_density(*model(x), y).mean()).backward()
        optimiser.step()
    fresh = torch.randn(2, 4000, 6, generator=generator)
    assert (
        abs(float(information_bound(*model(fresh[0]), fresh[1], torch.ones(4000, dtype=torch.bool)).detach())) < 0.1
    )
