"""Separation, bridge, geometry, neighbourhood: one number at a time, and what each forbids."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from pmrl_cli.terms.latent_structure import (
    bridge_distance,
    cross_geometry,
    neighbourhood_divergence,
    orthogonality,
    uniformity,
    view_geometry,
)
from tests.reference.agreement import draw

TWO = pytest.mark.parametrize(("modalities", "complete"), [(2, True), (4, False)])


def agree(found, wanted, *inputs):
    """Assert that two functions of unit vectors agree in value and in gradient, and that absent ones stay unmoved."""
    outcomes = []
    for function in (found, wanted):
        leaves = [x.clone().requires_grad_() for x in inputs]
        value = function(*(normalize(x, dim=-1) for x in leaves))
        gradients = torch.autograd.grad(value, leaves, allow_unused=True)
        known = [torch.zeros_like(x) if g is None else g for g, x in zip(gradients, leaves, strict=True)]
        outcomes.append((value.detach(), known))
    torch.testing.assert_close(outcomes[0][0], outcomes[1][0], rtol=1e-8, atol=1e-10)
    assert max(g.abs().max() for g in outcomes[1][1]) > 1e-4
    for mine, reference in zip(outcomes[0][1], outcomes[1][1], strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-7, atol=1e-9)


def mean(values):
    return sum(values) / len(values)


def draws(modalities, complete, rows=7):
    first, present = draw(rows, modalities, 5)
    second, _ = draw(rows, modalities, 5, seed=1)
    return first, second, present | complete


@TWO
def test_geometry_between_modalities(modalities, complete):
    vectors, _, present = draws(modalities, complete)

    def loops(z):
        of_pairs = []
        for m in range(modalities):
            for n in range(m + 1, modalities):
                rows = [i for i in range(len(z)) if present[i, m] and present[i, n]]
                if len(rows) < 2:
                    continue
                total = 0.0
                for j in rows:
                    for k in rows:
                        total = total + (z[j, m] @ z[k, n] - z[k, m] @ z[j, n]) ** 2
                        total = total + (z[j, m] @ z[k, m] - z[j, n] @ z[k, n]) ** 2
                of_pairs.append(total / len(rows))
        return mean(of_pairs)

    agree(lambda z: cross_geometry(z, present), loops, vectors)


@TWO
def test_geometry_between_views(modalities, complete):
    vectors, views, present = draws(modalities, complete)

    def loops(z, a):
        within, between = [], []
        for m in range(modalities):
            rows = [i for i in range(len(z)) if present[i, m]]
            within.append(sum((z[j, m] @ z[k, m] - a[j, m] @ a[k, m]) ** 2 for j in rows for k in rows) / len(rows))
            for n in range(m + 1, modalities):
                both = [i for i in rows if present[i, n]]
                between.append(mean([(z[j, m] @ z[j, n] - a[j, m] @ a[j, n]) ** 2 for j in both]))
        return mean(within) + mean(between)

    agree(lambda z, a: view_geometry(z, a, present), loops, vectors, views)


@TWO
def test_bridge(modalities, complete):
    vectors, views, present = draws(modalities, complete)

    def loops(z, a):
        values = []
        for i in range(len(z)):
            for m in range(modalities):
                for n in range(modalities):
                    if m != n and present[i, m] and present[i, n]:
                        # The closed form with the "2 - 2", the root and the sign that the printed line lacks.
                        length = torch.sqrt(0.25**2 + 0.75**2 + 2 * 0.25 * 0.75 * (z[i, m] @ z[i, n]))
                        values.append(2 - 2 * (0.25 * (z[i, m] @ a[i, m]) + 0.75 * (z[i, n] @ a[i, m])) / length)
        return mean(values)

    agree(lambda z, a: bridge_distance(z, a, present), loops, vectors, views)


def test_the_printed_closed_form_of_the_bridge_is_minimised_by_a_view_that_points_away():
    """Regression: without the sign, what is minimised pushes the view off the bridge."""
    z = normalize(torch.tensor([[[1.0, 0.0], [0.8, 0.6]]]), dim=-1)
    present = torch.ones(1, 2, dtype=torch.bool)

    def printed(view):
        return (0.25 * (z[0, 0] @ view) + 0.75 * (z[0, 1] @ view)) / (0.25**2 + 0.75**2 + 0.375 * (z[0, 0] @ z[0, 1]))

    towards, away = normalize(z.mean(1), dim=-1), -normalize(z.mean(1), dim=-1)
    assert printed(away[0]) < printed(towards[0])
    distances = [bridge_distance(z, view[:, None].expand(-1, 2, -1), present) for view in (towards, away)]
    assert distances[0] < 0.1 < 3 < distances[1]


@TWO
def test_orthogonality_and_uniformity(modalities, complete):
    vectors, unique, present = draws(modalities, complete)

    def right_angles(z, u):
        return mean([(z[i, m] @ u[i, m]) ** 2 for i in range(len(z)) for m in range(modalities) if present[i, m]])

    def spread(z):
        kernel = []
        for m in range(modalities):
            rows = [i for i in range(len(z)) if present[i, m]]
            kernel += [torch.exp(-2 * ((z[j, m] - z[k, m]) ** 2).sum()) for j in rows for k in rows]
        return torch.log(mean(kernel))

    agree(lambda z, u: orthogonality(z, u, present), right_angles, vectors, unique)
    agree(lambda z: uniformity(z, present), spread, vectors)


@TWO
@pytest.mark.parametrize("hops", [1, 3])
def test_neighbourhood(modalities, complete, hops):
    vectors, _, present = draws(modalities, complete)
    generator = torch.Generator().manual_seed(2)
    components = [torch.randn(7, 3 + m, generator=generator, dtype=torch.float64) for m in range(modalities)]

    def shares(x, rows):
        middle = mean([x[i] for i in rows])
        unit = {i: (x[i] - middle) / (x[i] - middle).norm() for i in rows}
        table = torch.stack([torch.stack([torch.exp(unit[j] @ unit[k] / 0.1) for k in rows]) for j in rows])
        return table / table.sum(1, keepdim=True)

    def loops(z):
        of_modalities = []
        for m in range(modalities):
            rows = [i for i in range(7) if present[i, m]]
            if len(rows) < 3:
                continue
            before, after = shares(components[m], rows), shares(z[:, m], rows)
            total = 0.0
            for hop in range(1, hops + 1):
                p, q = torch.linalg.matrix_power(before, hop), torch.linalg.matrix_power(after, hop)
                middle = (p + q) / 2
                js = (p * (p / middle).log() + q * (q / middle).log()).sum(1) / 2
                total = total + js.mean() / hop
            of_modalities.append(total / hops)
        return mean(of_modalities)

    agree(lambda z: neighbourhood_divergence(z, components, present, hops=hops), loops, vectors)


def test_the_same_geometry_costs_nothing():
    vectors, present = draw(9, 3, 4)
    turned, _ = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    components = list((vectors @ turned).unbind(1))
    assert neighbourhood_divergence(vectors, components, present).item() == pytest.approx(0, abs=1e-9)
    assert view_geometry(vectors, vectors @ turned, present).item() == pytest.approx(0, abs=1e-12)
    same = vectors[:, :1].expand(-1, 3, -1)
    assert cross_geometry(same, present).item() == pytest.approx(0, abs=1e-12)
    assert bridge_distance(same, same, present).item() == pytest.approx(0, abs=1e-12)


def test_constants_of_the_public_code_of_cyclip():
    """Cyclic losses there: mean square times the batch, a weight of .25 each, on cosines without the logit scale."""
    vectors, _ = draw(6, 2, 4)
    image, text = vectors.unbind(1)
    cross = image @ text.T
    inmodal = (image @ image.T - text @ text.T).square().mean() * 6
    crossmodal = (cross - cross.T).square().mean() * 6
    found = 0.25 * cross_geometry(vectors, torch.ones(6, 2, dtype=torch.bool))
    torch.testing.assert_close(found, 0.25 * inmodal + 0.25 * crossmodal)


EVERY = {
    "geometry": lambda z, p: cross_geometry(z, p),
    "views": lambda z, p: view_geometry(z, z.flip(0), p),
    "bridge": lambda z, p: bridge_distance(z, z.flip(0), p),
    "orthogonality": lambda z, p: orthogonality(z, z.flip(0), p),
    "uniformity": lambda z, p: uniformity(z, p),
    "neighbourhood": lambda z, p: neighbourhood_divergence(
        z, [z[:, m].detach().roll(1, 0) for m in range(z.shape[1])], p
    ),
}


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("case", ["empty", "nothing present", "one row", "collapsed", "opposite"])
def test_edges_are_finite(name, case):
    vectors, present = draw(6, 3, 4)
    present[:] = case != "nothing present"
    if case == "collapsed":
        vectors = vectors[:1, :1].expand(6, 3, 4)
    if case == "opposite":
        vectors = vectors[:, :1] * torch.tensor([1.0, -1.0, 1.0])[None, :, None]
    rows = {"empty": 0, "one row": 1}.get(case, 6)
    leaf = vectors[:rows].clone().requires_grad_()
    value = EVERY[name](leaf, present[:rows])
    assert value.isfinite()
    value.backward()
    assert leaf.grad.isfinite().all()
    if case in ("empty", "nothing present"):
        assert value == 0
        assert (leaf.grad == 0).all()


@pytest.mark.parametrize("name", EVERY)
def test_absent_vectors_are_neither_seen_nor_moved(name):
    vectors, present = draw(8, 3, 4)
    present = present & present.flip(0)  # the second views above are the first in reverse order
    values = []
    for garbage in (0.0, 1e3):
        leaf = vectors.masked_fill(~present[..., None], garbage).requires_grad_()
        if name == "neighbourhood":
            value = neighbourhood_divergence(leaf, list(vectors.roll(1, 2).unbind(1)), present)
        else:
            value = EVERY[name](leaf, present)
        value.backward()
        assert (leaf.grad[~present] == 0).all()
        values.append(value.detach())
    torch.testing.assert_close(values[0], values[1])


def test_uniformity_is_bounded_by_collapse():
    one = torch.eye(4)[:1].expand(5, 2, 4)
    assert uniformity(one, torch.ones(5, 2, dtype=torch.bool)).item() == pytest.approx(0, abs=1e-6)
    assert math.exp(uniformity(torch.eye(4)[:, None], torch.ones(4, 1, dtype=torch.bool))) < 0.3
