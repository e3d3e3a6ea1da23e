"""gram: determinants of every anchor with every tuple."""

import pytest
import torch
from torch.nn.functional import normalize

from pmrl_cli.terms.gram import EPSILON, volumes
from tests.reference.agreement import agrees, contrast_of_tuples, draw, make_objective


def volume(anchor, others, present):
    """Root of the determinant of G * pp' + diag(1 - p)."""
    columns = torch.cat([anchor[None], others])
    there = torch.cat([torch.ones(1), present.float()]).to(columns.dtype)
    gram = (columns @ columns.T) * torch.outer(there, there) + torch.diag(1 - there)
    return torch.linalg.det(gram).sqrt()


def loops(embeddings, present, anchor=0, temperature=0.07):
    rest = [m for m in range(embeddings.shape[1]) if m != anchor]
    asks = [i for i in range(len(embeddings)) if present[i, anchor]]
    tuples = [j for j in range(len(embeddings)) if present[j, rest].any()]

    def score(i, j):
        return -volume(embeddings[i, anchor], embeddings[j, rest], present[j, rest]) / temperature

    return contrast_of_tuples(score, asks, tuples)


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize(("modalities", "settings"), [(2, {}), (3, {}), (5, {"anchor": 2, "temperature": 0.3})])
def test_value_and_gradient_are_the_formula(modalities, settings, complete):
    embeddings, present = draw(8, modalities, 9)
    agrees("gram", settings, lambda z, p: loops(z, p, **settings), embeddings, present | complete, rtol=1e-4)


def test_volume_of_three_is_the_closed_form():
    embeddings, _ = draw(5, 3, 6)
    found = volumes(embeddings[:, 0], embeddings[:, 1:], torch.ones(5, 2, dtype=torch.bool))
    a, b = embeddings[:, 0] @ embeddings[:, 1].T, embeddings[:, 0] @ embeddings[:, 2].T
    c = (embeddings[:, 1] * embeddings[:, 2]).sum(1)
    torch.testing.assert_close(found, (1 + 2 * a * b * c - a**2 - b**2 - c**2).sqrt(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("modalities", [2, 3, 6])
def test_the_epsilon_holds_values_and_gradients_where_the_volume_has_a_kink(modalities, dtype):
    """Identical modalities: the volume is 0 but for the epsilon, and no gradient is longer than the volume's 1."""
    one = normalize(torch.randn(1, 1, 8, generator=torch.Generator().manual_seed(0), dtype=dtype), dim=-1)
    vectors = one.repeat(1, modalities, 1).requires_grad_()
    found = volumes(vectors[:, 0], vectors[:, 1:], torch.ones(1, modalities - 1, dtype=torch.bool))
    assert 0 <= found.item() < 2 * modalities**0.5 * EPSILON**0.5
    (gradient,) = torch.autograd.grad(found.sum(), vectors)
    assert gradient.norm(dim=-1).max() < 1.1


def test_signs_are_not_seen():
    """The weakness the docstring names: an opposed modality costs nothing."""
    embeddings, present = draw(8, 3, 6)
    opposed = embeddings * torch.tensor([1.0, -1.0, 1.0])[:, None]
    values = [make_objective("gram", {})(vectors, present).value for vectors in (embeddings, opposed)]
    torch.testing.assert_close(values[0], values[1])


def test_two_that_agree_hide_the_third():
    """The other weakness: a tuple with two equal modalities has no volume, whatever the anchor is."""
    embeddings, _ = draw(4, 3, 6, shared=0.0)
    others = embeddings[:, [1, 1]]
    assert volumes(embeddings[:, 0], others, torch.ones(4, 2, dtype=torch.bool)).max() < 2e-3
