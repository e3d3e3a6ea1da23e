"""vicreg: moments of the embeddings times sqrt(d), one entry at a time."""

import math

import pytest
import torch

from tests.reference.agreement import agrees, draw, make_objective


def loops(embeddings, present, invariance_weight=25.0, variance_weight=25.0, covariance_weight=1.0):
    batch, modalities, dim = embeddings.shape
    vectors = embeddings * math.sqrt(dim)
    takes_part = [i for i in range(batch) if present[i].sum() > 1]
    differences, hinges, off_diagonals = [], [], []
    for m in range(modalities):
        rows = [i for i in takes_part if present[i, m]]
        for n in range(m):
            differences += [((vectors[i, m] - vectors[i, n]) ** 2).sum() / dim for i in rows if present[i, n]]
        if len(rows) < 2:
            continue
        mean = sum(vectors[i, m] for i in rows) / len(rows)
        hinge, off_diagonal = 0.0, 0.0
        for a in range(dim):
            for b in range(dim):
                entry = sum((vectors[i, m, a] - mean[a]) * (vectors[i, m, b] - mean[b]) for i in rows)
                entry = entry / (len(rows) - 1)
                if a == b:
                    hinge = hinge + torch.relu(1 - torch.sqrt(entry + 1e-4)) / dim
                else:
                    off_diagonal = off_diagonal + entry**2 / dim
        hinges.append(hinge)
        off_diagonals.append(off_diagonal)
    mean_of = [sum(terms) / len(terms) for terms in (differences, hinges, off_diagonals)]
    return invariance_weight * mean_of[0] + variance_weight * mean_of[1] + 2 * covariance_weight * mean_of[2]


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize(
    ("modalities", "settings"), [(2, {}), (4, {"invariance_weight": 1.0, "variance_weight": 3.0})]
)
def test_value_and_gradient_are_the_formula(modalities, settings, complete):
    embeddings, present = draw(9, modalities, 6)
    agrees("vicreg", settings, lambda z, p: loops(z, p, **settings), embeddings, present | complete)


def test_a_modality_of_one_instance_has_no_spread():
    embeddings, present = draw(9, 3, 6)
    present[:] = True
    present[1:, 2] = False
    agrees("vicreg", {}, loops, embeddings, present)


def test_the_hinge_is_nearly_met_by_evenly_spread_unit_vectors():
    """Why the embeddings are scaled: as unit vectors of d entries no deviation could be above 1 / sqrt(d)."""
    d = 16
    basis = torch.eye(d, dtype=torch.float64)
    vectors = torch.cat([basis, -basis]).repeat(50, 1)[:, None].expand(-1, 2, d)
    _, parts = make_objective("vicreg", {})(vectors, torch.ones(vectors.shape[:2], dtype=torch.bool))
    assert parts["invariance"] == 0
    assert parts["variance"].item() == pytest.approx(0.0, abs=1e-9)
    assert parts["covariance"].item() == pytest.approx(0.0, abs=1e-9)


def test_collapse_is_what_the_variance_forbids():
    one = torch.eye(8)[:1].expand(6, 3, 8)
    _, parts = make_objective("vicreg", {})(one, torch.ones(6, 3, dtype=torch.bool))
    assert parts["invariance"] == 0
    assert parts["variance"].item() == pytest.approx(1 - math.sqrt(1e-4), rel=1e-5)
