"""The transport plan that a term keeps: what defines a plan, its gradient through every round, and its edges."""

import math

import pytest
import torch
from torch.nn import functional

from pmrl_cli.batch import Encoded, Inputs
from pmrl_cli.encoders.protocol import Init
from pmrl_cli.terms import make_term
from pmrl_cli.terms.teacher_plan import LEARNED, TEACHER, log_plan, plan_divergence


def unit(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


@pytest.mark.parametrize(("a", "b"), [(2, 2), (5, 5), (4, 9), (1, 3)])
def test_a_plan_is_the_one_with_its_marginals_that_differs_from_the_kernel_by_a_factor_of_row_and_column(a, b):
    affinity = unit(a, 6) @ unit(b, 6, seed=1).T
    found = log_plan(affinity, 0.3, rounds=300)
    plan = found.exp()
    torch.testing.assert_close(plan.sum(1), torch.full((a,), 1 / a, dtype=torch.float64))
    torch.testing.assert_close(plan.sum(0), torch.full((b,), 1 / b, dtype=torch.float64))
    factors = found - affinity / 0.3
    additive = factors - factors[:1] - factors[:, :1] + factors[:1, :1]
    assert additive.abs().max() < 1e-9


def test_the_gradient_is_that_through_the_rounds():
    """Theorem 5.1 of the paper says (P - P*) / regularisation; here every round is differentiated."""
    affinity = (0.2 * unit(5, 6) @ unit(7, 6, seed=1).T).requires_grad_()
    teacher = 0.05 * unit(5, 6, seed=2) @ unit(7, 6, seed=3).T
    value = plan_divergence(affinity, teacher)
    (found,) = torch.autograd.grad(value, affinity)
    wanted = log_plan(teacher, TEACHER, rounds=300).exp()
    learned = log_plan(affinity, LEARNED, rounds=300)
    slow = sum(wanted[i, j] * (wanted[i, j].log() - learned[i, j]) for i in range(5) for j in range(7))
    (expected,) = torch.autograd.grad(slow, affinity)
    torch.testing.assert_close(value, slow, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_it_is_zero_where_the_plans_are_the_same():
    teacher = 0.1 * unit(6, 4) @ unit(6, 4, seed=1).T
    assert plan_divergence(teacher * (LEARNED / TEACHER), teacher).item() == pytest.approx(0, abs=1e-9)
    assert plan_divergence(teacher, teacher) > 0.01


def made(modalities, rows=12, width=5, seed=0):
    components = [unit(rows, 7 + m, seed=seed + m).float() for m in range(modalities)]
    maps = tuple(torch.randn(7 + m, width, generator=torch.Generator().manual_seed(m)) for m in range(modalities))
    term = make_term("plan")
    term.extend(None, Init(maps, tuple("abcde"[:modalities]), 0, 0.0))
    vectors = unit(rows, modalities, width, seed=9).float()
    return term, components, maps, vectors


@pytest.mark.parametrize("modalities", [2, 3, 5])
def test_a_batch_is_the_mean_over_pairs_of_those_that_are_there(modalities):
    term, components, maps, vectors = made(modalities)
    present = torch.rand(12, modalities, generator=torch.Generator().manual_seed(4)) < 0.7
    expected = []
    for a in range(modalities):
        for b in range(a + 1, modalities):
            first, second = present[:, a].nonzero()[:, 0], present[:, b].nonzero()[:, 0]
            t = [functional.normalize(components[m] @ maps[m], dim=1) for m in (a, b)]
            affinity = torch.tensor([[float(vectors[i, a] @ vectors[j, b]) for j in second] for i in first])
            teacher = torch.tensor([[float(t[0][i] @ t[1][j]) for j in second] for i in first])
            found, wanted = log_plan(affinity.double(), LEARNED), log_plan(teacher.double(), TEACHER)
            expected.append(float((wanted.exp() * (wanted - found)).sum()))
    inputs = Inputs(components, present)
    loss = term(Encoded(vectors, present), inputs).value
    assert float(loss) == pytest.approx(sum(expected) / len(expected), rel=1e-3)
    # Who belongs to whom is not asked: another order of one modality changes nothing.
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    moved, there = vectors.clone(), present.clone()
    moved[:, 0], there[:, 0] = vectors[order, 0], present[order, 0]
    again = term(Encoded(moved, there), Inputs([components[0][order], *components[1:]], there)).value
    assert float(again) == pytest.approx(float(loss), rel=1e-3)


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_edges_are_finite_and_connected(rows):
    term, components, _, vectors = made(2)
    leaf = vectors[:rows].clone().requires_grad_()
    present = torch.ones(rows, 2, dtype=torch.bool)
    loss = term(Encoded(leaf, present), Inputs([c[:rows] for c in components], present)).value
    loss.backward()
    assert math.isfinite(loss.item())
    assert leaf.grad.isfinite().all()
    if rows < 2:
        assert loss.item() == 0
