"""pmrl: sign-aware, unsaturated, comparable across numbers of modalities."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from pmrl_cli.methods import settings_of
from pmrl_cli.spectrum import spectrum
from pmrl_cli.terms.spectrum import TEMPERATURE_FLOOR, spectrum_loss
from tests.reference import objectives as reference
from tests.reference.agreement import make_objective

SPECTRUM_ONLY = {"spectrum_weight": 1.0, "instance_weight": 0.0, "pairwise_weight": 0.0}


def draw(batch, modalities, dim, *, shared=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(batch, modalities, dim, generator=generator, dtype=torch.float64)
    vectors += shared * torch.randn(batch, 1, dim, generator=generator, dtype=torch.float64)
    present = torch.rand(batch, modalities, generator=generator) < 0.7
    return normalize(vectors, dim=-1), present


def everything(embeddings):
    return torch.ones(embeddings.shape[:2], dtype=torch.bool)


def equicorrelated(cosine, modalities, batch=1):
    gram = (1 - cosine) * torch.eye(modalities) + cosine * torch.ones(modalities, modalities)
    root = torch.linalg.cholesky(gram.double())
    return torch.cat([root, torch.zeros(modalities, 2)], 1).expand(batch, modalities, modalities + 2).clone()


def spectrum_gradient_at(cosine, name):
    """Norm of the spectrum part's gradient at three equicorrelated modalities (all instances equal)."""
    embeddings = equicorrelated(cosine, 3).requires_grad_()
    settings = {key: 0.0 for key in settings_of(name) if key in ("instance_weight", "pairwise_weight")}
    # One instance has no others to contrast with, so the instance part of pmrl-paper is 0 too.
    value = make_objective(name, settings)(embeddings, everything(embeddings)).value
    return torch.autograd.grad(value, embeddings)[0].norm().item()


def test_spectrum_part_is_the_formula_with_missing_modalities():
    embeddings, present = draw(30, 5, 8)
    present[:3] = torch.eye(5, dtype=torch.bool)[:3]
    losses, temperatures = spectrum_loss(spectrum(embeddings, present, sign_aware=True), present)
    wanted, wanted_temperatures = reference.spectrum_loss(embeddings.numpy(), present.numpy(), TEMPERATURE_FLOOR)
    contributes = present.sum(1).numpy() > 1
    assert not contributes.all()
    np.testing.assert_allclose(losses[contributes], wanted[contributes], rtol=1e-6)
    np.testing.assert_allclose(temperatures[contributes], wanted_temperatures[contributes], rtol=1e-6)
    assert (losses[~contributes] == 0).all()


def test_value_is_the_weighted_sum_of_its_parts():
    embeddings, present = draw(20, 3, 8)
    weights = {"spectrum_weight": 0.5, "instance_weight": 2.0, "pairwise_weight": 3.0}
    torch.manual_seed(0)
    value, parts = make_objective("pmrl", weights)(embeddings, present)
    assert parts["spectrum"] * 0.5 + parts["instance"] * 2 + parts["pairwise"] * 3 == pytest.approx(value.item())
    losses, _ = reference.spectrum_loss(embeddings.numpy(), present.numpy(), TEMPERATURE_FLOOR)
    assert parts["spectrum"].item() == pytest.approx(np.nanmean(losses))
    assert parts["pairwise"].item() == pytest.approx(
        reference.pairwise_contrast(embeddings.numpy(), present.numpy(), 0.1), rel=1e-6
    )


def test_instance_part_of_two_modalities_is_pairwise_contrast():
    embeddings, present = draw(20, 2, 8)
    _, parts = make_objective("pmrl", {"pairwise_weight": 1.0})(embeddings, present)
    assert parts["instance"].item() == pytest.approx(parts["pairwise"].item())


def test_instance_part_contrasts_sign_aware_directions_of_the_drawn_subsets():
    from pmrl_cli.terms.contrast import random_subsets
    from tests.reference import spectrum as reference_spectrum

    embeddings, present = draw(12, 5, 8)
    torch.manual_seed(3)
    _, parts = make_objective("pmrl", {})(embeddings, present)
    torch.manual_seed(3)
    subsets = present[:, None] & random_subsets(5)
    first, second = (
        reference_spectrum.spectrum(embeddings.numpy(), s.numpy(), sign_aware=True)[1] for s in subsets.unbind(1)
    )
    has = subsets.any(2).numpy()
    losses = reference.symmetric_info_nce(first, second, has, 0.1)
    assert parts["instance"].item() == pytest.approx(losses[has.all(1)].mean(), rel=1e-6)


@pytest.mark.parametrize("modalities", [2, 3, 4, 8])
@pytest.mark.parametrize("others", ["aligned", "orthogonal"])
def test_spectrum_part_is_0_aligned_and_1_orthogonal_for_every_arity(modalities, others):
    """Whatever temperature the rest of the batch sets."""
    batch = torch.zeros(3, 8, 10, dtype=torch.float64)
    batch[0, :modalities, 0] = 1.0
    batch[1, :modalities] = torch.eye(10, dtype=torch.float64)[:modalities]
    batch[2] = batch[0, 0] if others == "aligned" else torch.eye(10, dtype=torch.float64)[:8]
    present = torch.zeros(3, 8, dtype=torch.bool)
    present[:2, :modalities] = True
    present[2] = True
    losses, _ = spectrum_loss(spectrum(batch, present, sign_aware=True), present)
    assert losses.tolist()[:2] == pytest.approx([0.0, 1.0], abs=1e-6)


@pytest.mark.parametrize("cosine", [0.0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("modalities", [2, 3, 5])
def test_temperature_leaves_a_tenth_of_the_softmax(modalities, cosine):
    embeddings = equicorrelated(cosine, modalities)
    _, parts = make_objective("pmrl", SPECTRUM_ONLY)(embeddings, everything(embeddings))
    levels = spectrum(embeddings, sign_aware=True).singular_values[0] / math.sqrt(modalities)
    share = (levels / parts["temperature_spectrum"]).softmax(0)[0].item()
    assert share == pytest.approx(0.9)


@pytest.mark.parametrize("cosine", [0.5, 0.9])
def test_spectrum_part_does_not_saturate(cosine):
    assert spectrum_gradient_at(cosine, "pmrl") > 0.2 * spectrum_gradient_at(0.1, "pmrl")


def test_an_opposite_modality_raises_the_loss_and_is_pulled_round():
    generator = torch.Generator().manual_seed(0)
    one = normalize(torch.randn(6, 1, 16, generator=generator, dtype=torch.float64), dim=-1)
    agree, oppose = one.repeat(1, 3, 1), torch.cat([one, one, -one], 1)
    objective = make_objective("pmrl", SPECTRUM_ONLY)
    values = [objective(vectors, everything(vectors)).value.item() for vectors in (agree, oppose)]
    assert values[0] == pytest.approx(0.0, abs=1e-9)
    assert values[1] > 1.0

    noise = 0.05 * torch.randn(oppose.shape, generator=generator, dtype=torch.float64)
    vectors = normalize(oppose + noise, dim=-1).requires_grad_()
    optimizer = torch.optim.SGD([vectors], lr=2.0)
    cosines = []
    for _ in range(200):
        unit = normalize(vectors, dim=-1)
        cosines.append((unit[:, 0] * unit[:, 2]).sum(-1).mean().item())
        optimizer.zero_grad()
        objective(vectors, everything(vectors)).value.backward()
        optimizer.step()
    assert cosines[0] < -0.9
    assert cosines[5] > cosines[0]
    assert cosines[-1] > 0.95


def test_plain_spectrum_part_would_call_the_opposite_modality_perfect():
    """Why pmrl is sign_aware: the published value is the same for z, z, z and z, z, -z."""
    one = normalize(torch.ones(1, 1, 4, dtype=torch.float64), dim=-1)
    agree, oppose = one.repeat(1, 3, 1), torch.cat([one, one, -one], 1)
    paper = make_objective("pmrl-paper", {})
    values = [paper(vectors, everything(vectors)).value.item() for vectors in (agree, oppose)]
    assert values[0] == pytest.approx(values[1])


@pytest.mark.parametrize("modalities", [2, 3, 5])
def test_gradient_is_that_of_finite_differences(modalities):
    embeddings, present = draw(6, modalities, 7)
    present[0] = True
    objective = make_objective("pmrl", {"spectrum_weight": 1.0}).double()
    _, parts = objective(embeddings, present)
    embeddings.requires_grad_()

    def value(vectors):
        torch.manual_seed(1)
        return objective(normalize(vectors, dim=-1), present).value

    (found,) = torch.autograd.grad(value(embeddings), embeddings)
    # The spectrum temperature is detached, so differences must hold it: it enters through the batch's mean gap.
    direction = torch.randn(embeddings.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    step = 1e-5
    with torch.no_grad():
        ends = []
        for sign in (1, -1):
            moved = normalize(embeddings + sign * step * direction, dim=-1)
            ends.append(value(moved) - spectrum_part(moved, present) + spectrum_part(moved, present, embeddings))
    assert (found * direction).sum().item() == pytest.approx(((ends[0] - ends[1]) / (2 * step)).item(), rel=1e-4)
    assert set(parts) >= {"spectrum", "instance", "pairwise", "temperature_spectrum", "temperature_instance"}


def spectrum_part(embeddings, present, held=None):
    """Mean spectrum loss, with the temperature measured on ``held`` (by default on the embeddings)."""
    contributes = present.sum(1) > 1
    spectra = spectrum(embeddings, present, sign_aware=True)
    if held is None:
        return spectrum_loss(spectra, present)[0].sum() / contributes.sum()
    _, temperature = spectrum_loss(spectrum(held, present, sign_aware=True), present)
    total = 0.0
    for i in contributes.nonzero()[:, 0].tolist():
        k, tau = int(present[i].sum()), temperature[i]
        aligned_values, orthogonal_values = torch.zeros(k), torch.full((k,), math.sqrt(1 / 2))
        aligned_values[0], orthogonal_values[0] = math.sqrt(k), math.sqrt((k + 1) / 2)
        at = [spectra.singular_values[i, :k], aligned_values, orthogonal_values]
        loss, aligned, orthogonal = (-(s / math.sqrt(k) / tau).log_softmax(0)[0] for s in at)
        total = total + (loss - aligned) / (orthogonal - aligned)
    return total / contributes.sum()


def test_orders_and_rotations_change_nothing():
    embeddings, present = draw(10, 2, 8)
    objective = make_objective("pmrl", {"pairwise_weight": 1.0})
    value = objective(embeddings, present).value.item()
    q, _ = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64))
    assert objective(embeddings @ q, present).value.item() == pytest.approx(value)
    order = torch.randperm(10)
    assert objective(embeddings[order], present[order]).value.item() == pytest.approx(value)
    assert objective(embeddings.flip(1), present.flip(1)).value.item() == pytest.approx(value)


@pytest.mark.parametrize("weights", [{}, {"pairwise_weight": 1.0}])
def test_lonely_instances_contribute_nothing_and_garbage_is_not_seen(weights):
    embeddings, present = draw(12, 3, 8)
    lonely = present.sum(1) < 2
    present[lonely] = False  # so that they are no negatives either
    objective = make_objective("pmrl", weights)
    torch.manual_seed(0)
    wanted = objective(embeddings[~lonely], present[~lonely]).value
    vectors = embeddings.masked_fill(~present[..., None], 1e6).requires_grad_()
    torch.manual_seed(0)
    found = objective(vectors, present).value
    torch.testing.assert_close(found, wanted)
    (grad,) = torch.autograd.grad(found, vectors)
    assert (grad[~present] == 0).all()


@pytest.mark.parametrize("case", ["no instance has two", "empty", "one modality"])
def test_loss_is_a_differentiable_zero_when_no_instance_contributes(case):
    embeddings, _ = draw(5, 1 if case == "one modality" else 3, 4)
    present = torch.zeros(embeddings.shape[:2], dtype=torch.bool)
    present[:, 0] = True
    if case == "empty":
        embeddings, present = embeddings[:0], present[:0]
    embeddings.requires_grad_()
    objective = make_objective("pmrl", {"pairwise_weight": 1.0})
    value = objective(embeddings, present).value
    value.backward()
    assert value == 0
    assert (embeddings.grad == 0).all()
    assert all((parameter.grad == 0).all() for parameter in objective.parameters())


@pytest.mark.parametrize("case", ["identical", "orthonormal", "opposite", "cancelling"])
def test_degenerate_batches_have_finite_gradients(case):
    one = normalize(torch.ones(1, 6), dim=-1)
    vectors = {
        "identical": one.expand(3, 6),
        "orthonormal": torch.eye(6)[:3],
        "opposite": torch.cat([one, one, -one]),
        "cancelling": torch.tensor([[1.0, 0.0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]]),
    }[case]
    vectors = vectors.expand(4, *vectors.shape).clone().requires_grad_()
    for seed in range(10):
        torch.manual_seed(seed)
        value = make_objective("pmrl", {"pairwise_weight": 1.0})(vectors, everything(vectors)).value
        assert torch.autograd.grad(value, vectors)[0].isfinite().all()
