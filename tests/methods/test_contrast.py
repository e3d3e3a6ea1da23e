"""Masked InfoNCE against loops, and the random subsets it is taken between."""

import itertools

import pytest
import torch
from torch.nn.functional import normalize

from pmrl_cli.terms import log_sums as log_sums_module
from pmrl_cli.terms.contrast import (
    LearnedTemperature,
    masked_mean,
    pairwise_contrast,
    random_subsets,
    symmetric_info_nce,
)
from tests.reference import objectives as reference


def draw(batch, modalities, dim, seed=0):
    generator = torch.Generator().manual_seed(seed)
    embeddings = normalize(torch.randn(batch, modalities, dim, generator=generator, dtype=torch.float64), dim=-1)
    return embeddings, torch.rand(batch, modalities, generator=generator) < 0.7


@pytest.mark.parametrize("held", [log_sums_module._HELD, 20])
@pytest.mark.parametrize("complete", [True, False])
def test_info_nce_is_the_formula_in_value_and_gradient(monkeypatch, complete, held):
    monkeypatch.setattr(log_sums_module, "_HELD", held)  # 20: two of nine rows of a gradient at once
    embeddings, present = draw(9, 2, 5)
    present |= complete
    found = symmetric_info_nce(embeddings[:, 0], embeddings[:, 1], present, 0.2)
    wanted = reference.symmetric_info_nce(embeddings[:, 0].numpy(), embeddings[:, 1].numpy(), present.numpy(), 0.2)
    torch.testing.assert_close(found, torch.from_numpy(wanted))
    embeddings.requires_grad_()
    temperature = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda e, t: symmetric_info_nce(e[:, 0], e[:, 1], present, t), (embeddings, temperature)
    )


@pytest.mark.parametrize("garbage", [1e30, torch.nan])
def test_info_nce_neither_sees_nor_moves_what_is_absent(garbage):
    embeddings, present = draw(9, 2, 5)
    outcomes = []
    for filling in (0.0, garbage):
        vectors = embeddings.masked_fill(~present[..., None], filling).requires_grad_()
        loss = symmetric_info_nce(vectors[:, 0], vectors[:, 1], present, 0.1)
        (grad,) = torch.autograd.grad(loss.sum(), vectors)
        assert (grad[~present] == 0).all()
        outcomes.append((loss.detach(), grad))
    torch.testing.assert_close(outcomes[0], outcomes[1], rtol=0, atol=0)


def test_info_nce_is_zero_with_zero_gradient_where_no_instance_has_both():
    embeddings, present = draw(6, 2, 5)
    present[:, 0], present[:, 1] = True, False
    embeddings.requires_grad_()
    loss = masked_mean(symmetric_info_nce(embeddings[:, 0], embeddings[:, 1], present, 0.1), present.all(1))
    (grad,) = torch.autograd.grad(loss, embeddings)
    assert loss == 0
    assert (grad == 0).all()


@pytest.mark.parametrize("together", [1, 3 * 64, 2**16])
def test_pairwise_contrast_has_its_gradient_however_many_pairs_are_computed_together(monkeypatch, together):
    monkeypatch.setattr(log_sums_module, "_TOGETHER", together)
    embeddings, present = draw(8, 4, 5)
    wanted = reference.pairwise_contrast(embeddings.numpy(), present.numpy(), 0.3)
    assert pairwise_contrast(embeddings, present, 0.3).item() == pytest.approx(wanted)
    embeddings.requires_grad_()
    temperature = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda e, t: pairwise_contrast(e, present, t), (embeddings, temperature))


def test_pairwise_contrast_is_the_mean_over_pairs_and_instances():
    embeddings, present = draw(8, 4, 6)
    wanted = reference.pairwise_contrast(embeddings.numpy(), present.numpy(), 0.3)
    assert pairwise_contrast(embeddings, present, 0.3).item() == pytest.approx(wanted)


def test_random_subsets_are_disjoint_filled_and_reach_every_choice():
    torch.manual_seed(0)
    drawn = {tuple(map(tuple, random_subsets(3).int().tolist())) for _ in range(500)}
    every = {
        (first, second)
        for first, second in itertools.product(itertools.product((0, 1), repeat=3), repeat=2)
        if any(first) and any(second) and not any(a and b for a, b in zip(first, second, strict=True))
    }
    assert drawn == every


@pytest.mark.parametrize(("start", "gradient_sign", "expected"), [(1.0, -1, 1.0), (0.015, 1, 0.015)])
def test_learned_temperature_stays_in_range_and_can_leave_the_end(start, gradient_sign, expected):
    temperature = LearnedTemperature(start)
    optimizer = torch.optim.SGD(temperature.parameters(), lr=0.5)
    for _ in range(5):
        optimizer.zero_grad()
        (gradient_sign * temperature().log()).backward()
        optimizer.step()
    assert temperature().item() == pytest.approx(expected)
    for _ in range(2):
        optimizer.zero_grad()
        (-gradient_sign * temperature().log()).backward()
        optimizer.step()
    assert abs(temperature().log().item() - torch.tensor(expected).log().item()) > 0.5
