"""infonce: pairwise contrast, and nothing else."""

import pytest
import torch

from tests.reference.agreement import agrees, draw, make_objective, softmax_loss


def loops(embeddings, present, temperature=0.1):
    terms = []
    for m in range(embeddings.shape[1]):
        for n in range(embeddings.shape[1]):
            if m == n:
                continue
            for i in range(len(embeddings)):
                if present[i, m] and present[i, n]:
                    scores = {
                        j: embeddings[i, m] @ embeddings[j, n] / temperature
                        for j in range(len(embeddings))
                        if present[j, n]
                    }
                    terms.append(softmax_loss(scores, i))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize(("modalities", "settings"), [(2, {}), (4, {"temperature": 0.5})])
def test_value_and_gradient_are_the_formula(modalities, settings, complete):
    embeddings, present = draw(9, modalities, 6)
    agrees("infonce", settings, lambda z, p: loops(z, p, **settings), embeddings, present | complete)


def test_equal_instances_cost_what_guessing_costs():
    embeddings = torch.ones(7, 3, 4) / 2
    value = make_objective("infonce", {})(embeddings, torch.ones(7, 3, dtype=torch.bool)).value
    torch.testing.assert_close(value, torch.tensor(7.0).log())
