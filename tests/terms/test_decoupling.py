"""Decoupling and homogeneity: one number at a time, and what the original formulas would let through."""

import itertools

import pytest
import torch
from torch.nn.functional import normalize

from pmrl_cli.terms.decoupling import linear_dependence, mean_discrepancy, moment_difference, squared_cosine
from tests.reference.agreement import draw


def agree(found, wanted, *inputs):
    outcomes = []
    for function in (found, wanted):
        leaves = [x.clone().requires_grad_() for x in inputs]
        value = function(*leaves)
        outcomes.append((value.detach(), torch.autograd.grad(value, leaves)))
    torch.testing.assert_close(outcomes[0][0], outcomes[1][0], rtol=1e-8, atol=1e-10)
    assert max(g.abs().max() for g in outcomes[1][1]) > 1e-4
    for mine, reference in zip(outcomes[0][1], outcomes[1][1], strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-6, atol=1e-9)


def draws(complete, rows=8, dim=3):
    common, present = draw(rows, 3, dim)
    unique, _ = draw(rows, 3, dim, seed=1)
    return common, 2 * unique, present | complete


def mean(values):
    return sum(values) / len(values)


def rows_of(present, m):
    return [i for i in range(len(present)) if present[i, m]]


COMPLETE = pytest.mark.parametrize("complete", [True, False])


@COMPLETE
def test_squared_cosine(complete):
    common, unique, present = draws(complete)

    def loops(c, s):
        return mean(
            [
                (c[i, m] @ s[i, m]) ** 2 / (c[i, m] @ c[i, m]) / (s[i, m] @ s[i, m])
                for m in range(3)
                for i in rows_of(present, m)
            ]
        )

    agree(lambda c, s: squared_cosine(c, s, present), loops, common, unique)


def test_opposite_parts_are_not_the_best():
    """Regression: the cosine itself, as printed, is lowest where the two parts are opposite, and so the same."""
    common, _ = draw(5, 2, 3)
    present = torch.ones(5, 2, dtype=torch.bool)
    assert squared_cosine(common, -common, present).item() == pytest.approx(1)


@COMPLETE
def test_linear_dependence(complete):
    common, unique, present = draws(complete)

    def loops(c, s):
        values = []
        for m in range(3):
            rows = rows_of(present, m)
            centred = []
            for x in (s[:, m], c[:, m]):
                middle = mean([x[i] for i in rows])
                centred.append([x[i] - middle for i in rows])

            def squares(a, b):
                return sum(
                    sum(x[p] * y[q] for x, y in zip(a, b, strict=True)) ** 2 for p in range(3) for q in range(3)
                )

            s_m, c_m = centred
            values.append(squares(s_m, c_m) / torch.sqrt(squares(s_m, s_m) * squares(c_m, c_m)))
        return mean(values)

    agree(lambda c, s: linear_dependence(c, s, present), loops, common, unique)


def test_right_angles_may_hide_the_same_information_but_not_from_the_covariance():
    """Regression: cos(c, s) = 0 for every instance, and s is a rotation of c."""
    common, _ = draw(64, 1, 4, shared=0.0)
    quarter = torch.tensor([[0.0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 1], [0, 0, -1, 0]], dtype=torch.float64)
    unique = common @ quarter
    present = torch.ones(64, 1, dtype=torch.bool)
    assert squared_cosine(common, unique, present) < 1e-20
    assert linear_dependence(common, unique, present) > 0.9
    independent, _ = draw(64, 1, 4, shared=0.0, seed=9)
    assert linear_dependence(common, independent, present) < 0.15


@COMPLETE
def test_moment_difference(complete):
    vectors, _, present = draws(complete)

    def moments(x, rows):
        x = {i: x[i] * 3**0.5 for i in rows}
        middle = mean(list(x.values()))
        variance = mean([(v - middle) ** 2 for v in x.values()])
        skewness = mean([(v - middle) ** 3 for v in x.values()]) / variance**1.5
        covariance = sum(torch.outer(v - middle, v - middle) for v in x.values()) / (len(rows) - 1)
        return middle, covariance, skewness

    def loops(z):
        found = [moments(z[:, m], rows_of(present, m)) for m in range(3)]
        pairs = itertools.combinations(found, 2)
        return mean([sum(((a - b) ** 2).mean() for a, b in zip(one, other, strict=True)) for one, other in pairs])

    agree(lambda z: moment_difference(z, present), loops, vectors)


@COMPLETE
def test_mean_discrepancy(complete):
    vectors, _, present = draws(complete)

    def kernel(z, m, n):
        terms = [
            torch.exp(-((z[i, m] - z[j, n]) ** 2).sum() / 2) for i in rows_of(present, m) for j in rows_of(present, n)
        ]
        return mean(terms)

    def loops(z):
        pairs = itertools.combinations(range(3), 2)
        return mean([kernel(z, m, m) + kernel(z, n, n) - 2 * kernel(z, m, n) for m, n in pairs])

    agree(lambda z: mean_discrepancy(z, present), loops, vectors)


def test_a_shift_is_unlearned_because_the_common_parts_themselves_are_compared():
    """Regression: of a further network's output the same terms left the common parts as they were."""
    vectors, _ = draw(64, 2, 6, shared=0.0)
    vectors[:, 1] += 0.8
    vectors = normalize(vectors, dim=-1)
    present = torch.ones(64, 2, dtype=torch.bool)
    shift = torch.zeros(2, 6, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([shift], lr=0.05)
    found = []
    for _ in range(60):
        common = normalize(vectors + shift, dim=-1)
        discrepancy = mean_discrepancy(common, present)
        found.append(discrepancy.item())
        optimiser.zero_grad()
        (discrepancy + 0.1 * moment_difference(common, present)).backward()
        optimiser.step()
    assert found[-1] < 0.2 * found[0]


FORMULAS = {
    "cosine": lambda z, p: squared_cosine(z, z.flip(2), p),
    "dependence": lambda z, p: linear_dependence(z, z.flip(2), p),
    "moments": moment_difference,
    "discrepancy": mean_discrepancy,
}


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("case", ["empty", "nothing present", "one row", "collapsed", "one modality"])
def test_edges_are_finite(name, case):
    vectors, present = draw(6, 3, 4)
    present[:] = case != "nothing present"
    if case == "collapsed":
        vectors = vectors[:1, :1].expand(6, 3, 4)
    rows = {"empty": 0, "one row": 1}.get(case, 6)
    modalities = 1 if case == "one modality" else 3
    leaf = vectors[:rows, :modalities].clone().requires_grad_()
    value = FORMULAS[name](leaf, present[:rows, :modalities])
    assert value.isfinite()
    if value.requires_grad:
        value.backward()
        assert leaf.grad.isfinite().all()
    if case in ("empty", "nothing present"):
        assert value == 0


@pytest.mark.parametrize("name", FORMULAS)
def test_absent_vectors_are_neither_seen_nor_moved(name):
    vectors, present = draw(8, 3, 4)
    values = []
    for garbage in (0.0, 1e3):
        leaf = vectors.masked_fill(~present[..., None], garbage).requires_grad_()
        value = FORMULAS[name](leaf, present)
        value.backward()
        assert (leaf.grad[~present] == 0).all()
        values.append(value.detach())
    torch.testing.assert_close(values[0], values[1])


def test_values_are_what_the_public_code_gives():
    # compute_decoupling_loss, _distribution_stats with _stats_distance, and compute_mmd of the authors' model.py on
    # these, in float64, means over modalities or their pairs; moments are theirs of vectors times sqrt(3).
    index = torch.arange(90, dtype=torch.float64).reshape(10, 3, 3)
    common, unique = (index * 0.7).sin(), (index * 1.3 + 0.5).cos()
    present, unit = torch.ones(10, 3, dtype=torch.bool), torch.nn.functional.normalize(common, dim=2)
    assert float(squared_cosine(common, unique, present)) == pytest.approx(0.42586457058662014, rel=1e-9)
    assert float(moment_difference(unit, present)) == pytest.approx(3.0151269532739953, rel=1e-9)
    assert float(mean_discrepancy(unit, present)) == pytest.approx(1.5238529302023964, rel=1e-9)
