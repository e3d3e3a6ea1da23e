"""triangle: areas of every anchor with every two others, for three modalities only."""

import pytest
import torch

from pmrl_cli.errors import UsageError
from pmrl_cli.methods import make_method
from pmrl_cli.terms.triangle import areas
from tests.reference.agreement import agrees, contrast_of_tuples, draw


def area(anchor, first, second):
    u, v = anchor - first, anchor - second
    return ((u @ u) * (v @ v) - (u @ v) ** 2) / 2


def loops(embeddings, present, anchor=0, temperature=0.07):
    first, second = (m for m in range(3) if m != anchor)
    asks = [i for i in range(len(embeddings)) if present[i, anchor]]
    tuples = [j for j in range(len(embeddings)) if present[j, first] and present[j, second]]

    def score(i, j):
        return -area(embeddings[i, anchor], embeddings[j, first], embeddings[j, second]) / temperature

    return contrast_of_tuples(score, asks, tuples)


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize("settings", [{}, {"anchor": 1, "temperature": 0.5}])
def test_value_and_gradient_are_the_formula(settings, complete):
    embeddings, present = draw(9, 3, 6)
    agrees("triangle", settings, lambda z, p: loops(z, p, **settings), embeddings, present | complete)


def test_area_is_twice_the_square_of_half_base_times_height():
    """Corners e1, e2 and -e1: base 2, height 1, area 1."""
    e = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(areas(e[:1], e[1:2], -e[:1]), torch.full((1, 1), 2.0, dtype=torch.float64))


def test_an_opposed_modality_costs():
    one = torch.eye(4)[:1]
    assert areas(one, one, one).item() == 0
    assert areas(one, -one, torch.eye(4)[1:2]).item() > 1


@pytest.mark.parametrize("modalities", [2, 4])
def test_another_number_of_modalities_is_refused_even_for_an_empty_batch(modalities):
    with pytest.raises(UsageError, match=f"triangle takes three modalities: {modalities}, expected 3"):
        make_method("triangle", {}).check(modalities)
