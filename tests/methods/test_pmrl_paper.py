"""The published objective, pinned to its formula by the authors' own call of the SVD."""

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from tests.reference import objectives as reference
from tests.reference.agreement import make_objective


def draw(batch, modalities, dim, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(batch, 1, dim, generator=generator, dtype=torch.float64)
    own = torch.randn(batch, modalities, dim, generator=generator, dtype=torch.float64)
    return normalize(shared + own, dim=-1)


def published(embeddings, temperature_spectrum=0.05, temperature_instance=0.1):
    """The authors' lines (stack, full SVD, cross-entropies), with the sign of u1 made the same."""
    columns = torch.stack(embeddings.unbind(1), dim=-1)
    u, sigma, _ = torch.linalg.svd(columns, full_matrices=True)  # noqa: TID251 - the published call
    direction = u[:, :, 0]
    direction = direction * (direction * columns.sum(-1)).sum(1, keepdim=True).sign()
    intra = cross_entropy(sigma / temperature_spectrum, torch.zeros(len(sigma), dtype=torch.long))
    inter = cross_entropy(direction @ direction.mT / temperature_instance, torch.arange(len(sigma)))
    return intra + inter


@pytest.mark.parametrize(("modalities", "settings"), [(2, {}), (3, {}), (4, {"temperature_spectrum": 0.5}), (8, {})])
def test_value_and_gradient_are_the_published_ones(modalities, settings):
    embeddings = draw(12, modalities, 24).requires_grad_()
    present = torch.ones(12, modalities, dtype=torch.bool)
    found = make_objective("pmrl-paper", settings)(embeddings, present).value
    wanted = published(embeddings, **settings)
    torch.testing.assert_close(found, wanted)
    found_gradient, wanted_gradient = (torch.autograd.grad(value, embeddings)[0] for value in (found, wanted))
    # Ours is the gradient on the sphere, where the embeddings live; theirs also points along them.
    wanted_gradient = wanted_gradient - (wanted_gradient * embeddings).sum(-1, keepdim=True) * embeddings
    torch.testing.assert_close(found_gradient, wanted_gradient.detach(), rtol=1e-3, atol=1e-7)


def test_missing_modalities_are_left_out_instance_by_instance():
    embeddings = draw(10, 4, 9)
    present = torch.rand(10, 4, generator=torch.Generator().manual_seed(1)) < 0.5
    present[0], present[1] = False, torch.tensor([False, True, False, False])
    wanted = reference.pmrl_paper(embeddings.numpy(), present.numpy(), 0.05, 0.1)
    embeddings[~present] = 7.0
    assert make_objective("pmrl-paper", {})(embeddings, present).value.item() == pytest.approx(wanted)


def test_spectrum_part_saturates():
    """What pmrl repairs: at a mean cosine of .5 this gradient is below 1% of that at .1."""
    from tests.methods.test_pmrl import spectrum_gradient_at

    early, late = (spectrum_gradient_at(cosine, "pmrl-paper") for cosine in (0.1, 0.5))
    assert late < 0.01 * early


@pytest.mark.parametrize("case", ["identical", "orthonormal", "empty", "nothing present"])
def test_degenerate_batches_have_finite_gradients(case):
    vectors = {
        "identical": normalize(torch.ones(4, 3, 6), dim=-1),
        "orthonormal": torch.eye(6)[:3].expand(4, 3, 6),
        "empty": torch.zeros(0, 3, 6),
        "nothing present": torch.ones(4, 3, 6),
    }[case]
    vectors = vectors.clone().requires_grad_()
    present = torch.full(vectors.shape[:2], case != "nothing present")
    value = make_objective("pmrl-paper", {})(vectors, present).value
    (grad,) = torch.autograd.grad(value, vectors)
    assert grad.isfinite().all()
    if case in ("empty", "nothing present"):
        assert value == 0
        assert (grad == 0).all()
