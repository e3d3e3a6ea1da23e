"""anchor: only pairs with the anchor."""

import pytest
import torch

from tests.reference.agreement import agrees, draw, make_objective, softmax_loss


def loops(embeddings, present, anchor=0, temperature=0.1):
    terms = []
    for m in range(embeddings.shape[1]):
        if m == anchor:
            continue
        for i in range(len(embeddings)):
            if not (present[i, m] and present[i, anchor]):
                continue
            for query, gallery in ((anchor, m), (m, anchor)):
                scores = {
                    j: embeddings[i, query] @ embeddings[j, gallery] / temperature
                    for j in range(len(embeddings))
                    if present[j, gallery]
                }
                terms.append(softmax_loss(scores, i))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize(("modalities", "settings"), [(2, {}), (4, {"anchor": 2, "temperature": 0.3})])
def test_value_and_gradient_are_the_formula(modalities, settings, complete):
    embeddings, present = draw(9, modalities, 6)
    agrees("anchor", settings, lambda z, p: loops(z, p, **settings), embeddings, present | complete)


def test_instances_without_the_anchor_are_negatives_but_no_positives():
    embeddings, present = draw(8, 3, 6)
    present[:] = True
    present[0, 1] = False
    embeddings.requires_grad_()
    value = make_objective("anchor", {"anchor": 1})(embeddings, present).value
    (gradient,) = torch.autograd.grad(value, embeddings)
    pushed = gradient[0, 0] @ (embeddings[1:, 1].sum(0))
    assert pushed > 0  # a step down the gradient leaves the anchors of the others


def test_for_two_modalities_every_anchor_is_infonce():
    embeddings, present = draw(10, 2, 6)
    values = [
        make_objective(name, settings)(embeddings, present).value
        for name, settings in (("infonce", {}), ("anchor", {}), ("anchor", {"anchor": 1}))
    ]
    torch.testing.assert_close(values[1], values[0])
    torch.testing.assert_close(values[2], values[0])
