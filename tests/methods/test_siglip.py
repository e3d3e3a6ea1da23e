"""siglip: one sigmoid for every two instances."""

import math

import pytest
import torch

from tests.reference.agreement import agrees, draw, make_objective


def loops(embeddings, present, temperature=0.1, bias=-10.0):
    total, positives = 0.0, 0
    for m in range(embeddings.shape[1]):
        for n in range(m):
            rows = [i for i in range(len(embeddings)) if present[i, m] and present[i, n]]
            positives += len(rows)
            for i in rows:
                for j in rows:
                    sign = 1 if i == j else -1
                    logit = embeddings[i, m] @ embeddings[j, n] / temperature + bias
                    total = total - torch.log(1 / (1 + torch.exp(-sign * logit)))
    return total / positives


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize(("modalities", "settings"), [(2, {}), (4, {"temperature": 0.3, "bias": -1.0})])
def test_value_and_gradient_are_the_formula(modalities, settings, complete):
    embeddings, present = draw(9, modalities, 6)
    agrees("siglip", settings, lambda z, p: loops(z, p, **settings), embeddings, present | complete)


def test_scale_and_bias_have_the_gradient_of_finite_differences():
    embeddings, present = draw(9, 3, 6)
    objective = make_objective("siglip", {"bias": -2.0}).double()
    objective(embeddings, present).value.backward()
    for parameter in objective.parameters():
        ends = []
        for step in (1e-6, -2e-6):
            with torch.no_grad():
                parameter += step
            ends.append(objective(embeddings, present).value.item())
        with torch.no_grad():
            parameter += 1e-6
        assert parameter.grad.item() == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5)


def test_the_bias_learns_how_rare_a_match_is():
    """Of unrelated instances the best constant logit is that of one match in B: log(1 / (B - 1))."""
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.nn.functional.normalize(torch.randn(16, 2, 4096, generator=generator), dim=-1)
    objective = make_objective("siglip", {"temperature": 1.0})
    bias = objective.terms.terms[0].bias
    optimizer = torch.optim.LBFGS([bias], line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = objective(embeddings, torch.ones(16, 2, dtype=torch.bool)).value
        value.backward()
        return value

    for _ in range(5):
        optimizer.step(closure)
    assert bias.item() == pytest.approx(-math.log(15), abs=0.05)
