"""ldc: each modality against the leading direction of the others."""

import numpy as np
import pytest
import torch

from pmrl_cli.terms.spectrum import TEMPERATURE_FLOOR
from tests.reference import objectives as reference
from tests.reference.agreement import agrees, draw, make_objective, softmax_loss


def lifted_direction(vectors):
    """Z v renormalised, v the leading eigenvector of (1 + cos) / 2; for eigh's autograd, all gaps must be open."""
    relation = (1 + vectors @ vectors.T) / 2
    resultant = torch.linalg.eigh(relation)[1][:, -1].abs() @ vectors
    return resultant / resultant.norm()


def loops(embeddings, present, temperature=0.1):
    batch, modalities, _ = embeddings.shape
    terms = []
    for m in range(modalities):
        directions = {}
        for i in range(batch):
            others = [n for n in range(modalities) if n != m and present[i, n]]
            if others:
                directions[i] = lifted_direction(embeddings[i, others])
        own = {i: embeddings[i, m] for i in range(batch) if present[i, m]}
        for i in own.keys() & directions.keys():
            there = {j: own[i] @ u / temperature for j, u in directions.items()}
            back = {j: directions[i] @ z / temperature for j, z in own.items()}
            terms.append((softmax_loss(there, i) + softmax_loss(back, i)) / 2)
    return sum(terms) / len(terms)


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize(("modalities", "settings"), [(3, {}), (5, {"temperature": 0.3})])
def test_value_and_gradient_of_the_contrast_are_the_formula(modalities, settings, complete):
    embeddings, present = draw(8, modalities, 7)
    settings = {"spectrum_weight": 0.0, **settings}
    agrees(
        "ldc",
        settings,
        lambda z, p: loops(z, p, settings.get("temperature", 0.1)),
        embeddings,
        present | complete,
        rtol=1e-4,  # the kernel rounds off 1 / gap by (1e-3 / gap)^2
    )


def test_spectrum_part_is_that_of_pmrl_times_its_weight():
    embeddings, present = draw(20, 4, 8)
    values = {w: make_objective("ldc", {"spectrum_weight": w})(embeddings, present).value.item() for w in (0.0, 0.3)}
    losses, _ = reference.spectrum_loss(embeddings.numpy(), present.numpy(), TEMPERATURE_FLOOR)
    assert values[0.3] - values[0.0] == pytest.approx(0.3 * np.nanmean(losses), rel=1e-6)


def test_for_two_modalities_the_contrast_is_infonce():
    embeddings, present = draw(10, 2, 6)
    found = make_objective("ldc", {"spectrum_weight": 0.0})(embeddings, present).value
    torch.testing.assert_close(found, make_objective("infonce", {})(embeddings, present).value)


def test_a_modality_is_not_compared_with_itself():
    """Were z in its own consensus, the loss of unrelated modalities would be below chance."""
    embeddings, present = draw(64, 3, 512, shared=0.0)
    _, parts = make_objective("ldc", {"temperature": 1.0})(embeddings, present | True)
    assert parts["contrast"].item() == pytest.approx(np.log(64), abs=0.01)
