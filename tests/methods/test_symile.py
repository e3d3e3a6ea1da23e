"""symile: products of all modalities, of one instance and of shuffled ones."""

import pytest
import torch
from torch.nn.functional import normalize

from pmrl_cli.terms.symile import draw_shuffles
from tests.reference.agreement import agrees, draw, make_objective, softmax_loss


def product(vectors):
    return sum(torch.stack([v[d] for v in vectors]).prod() for d in range(len(vectors[0])))


def loops(embeddings, present, temperature=0.1):
    rows = [i for i in range(len(embeddings)) if present[i].all()]
    modalities, dim = embeddings.shape[1:]
    scale = dim ** (modalities / 2 - 1) / temperature
    shuffles = draw_shuffles(len(rows), modalities).tolist()
    total = 0.0
    for m in range(modalities):
        others = [n for n in range(modalities) if n != m]
        for a, i in enumerate(rows):
            scores = {a: scale * product(embeddings[i])}
            for b in range(len(rows)):
                members = [shuffles[m][place][b] for place in range(modalities - 1)]
                if b == a or set(members) == {a}:
                    continue
                parts = [embeddings[rows[member], n] for member, n in zip(members, others, strict=True)]
                scores[b] = scale * product([embeddings[i, m], *parts])
            total = total + softmax_loss(scores, a) / (modalities * len(rows))
    return total


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize(("modalities", "settings"), [(2, {}), (3, {}), (4, {"temperature": 0.5})])
def test_value_and_gradient_are_the_formula(modalities, settings, complete):
    embeddings, present = draw(8, modalities, 5)
    present[:3] = True
    agrees("symile", settings, lambda z, p: loops(z, p, **settings), embeddings, present | complete)


def test_every_modality_of_every_anchor_is_shuffled_for_itself():
    torch.manual_seed(0)
    shuffles = draw_shuffles(50, 4)
    assert (shuffles.sort(-1).values == torch.arange(50)).all()
    assert len({tuple(order.tolist()) for order in shuffles.flatten(0, 1)}) == 12


def exclusive_or(n=256, dim=16, seed=0):
    """Signs of the third are those of the first times the second: no two modalities tell anything of each other."""
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (n, 2, dim), generator=generator).double() * 2 - 1
    return normalize(torch.cat([signs, signs.prod(1, keepdim=True)], 1), dim=-1)


def test_it_sees_what_only_all_modalities_tell():
    vectors, present = exclusive_or(), torch.ones(256, 3, dtype=torch.bool)
    values = {name: make_objective(name, {})(vectors, present).value for name in ("symile", "infonce")}
    chance = torch.tensor(256.0).log().item()
    assert values["symile"] < 0.2 * chance
    assert values["infonce"] > chance
