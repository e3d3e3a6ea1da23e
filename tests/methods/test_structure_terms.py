"""The terms of structure beside infonce, on a toy of shared and unique factors: what each buys, and what it costs."""

import pytest
import torch

from pmrl_cli.methods import make_method
from pmrl_cli.terms.latent_structure import bridge_distance, neighbourhood_divergence
from tests.methods.toy import r_squared, recall, start, toy, train

TERMS = {"geometry": 0.25, "bridge": 5.0, "separation": 1.0, "neighbourhood": 10.0}


def mean(values):
    return sum(values) / len(values)


def measures(encoder, held):
    with torch.no_grad():
        output = encoder(held.inputs)
    z = output.vectors
    grams = [z[:, m] @ z[:, m].T for m in range(2)]
    seen = [torch.cat([z[:, m], output.extra["unique"][:, m]], 1) if output.extra else z[:, m] for m in range(2)]
    return {
        "recall": recall(z),
        "grams": (grams[0] - grams[1]).square().mean().sqrt().item(),
        "bridge": bridge_distance(z, z, output.present).item(),
        "neighbours": neighbourhood_divergence(z, held.inputs.components, output.present).item(),
        "unique": mean([r_squared(seen[m], held.unique[m]) for m in range(2)]),
    }


@pytest.fixture(scope="module")
def data():
    whole = toy(850, modalities=2, noise=0.6, bend=0.5)
    return whole.rows(torch.arange(600)), whole.rows(torch.arange(600, 850))


@pytest.fixture(scope="module")
def without(data):
    encoder, _ = train(make_method("infonce", {}), data[0], start(data[0], 12), steps=150)
    return measures(encoder, data[1])


@pytest.mark.parametrize("term", TERMS)
def test_a_term_buys_what_it_is_for(term, data, without):
    added = {term: TERMS[term]}
    encoder, _ = train(make_method("infonce", {}), data[0], start(data[0], 12), added=added, steps=150)
    found = measures(encoder, data[1])
    if term == "geometry":
        assert found["grams"] < 0.75 * without["grams"]
    if term == "bridge":
        assert found["bridge"] < 0.75 * without["bridge"]
        # It draws what only one modality has out of its vector.
        assert found["unique"] < without["unique"]
    if term == "separation":
        assert found["unique"] > without["unique"] + 0.08
    if term == "neighbourhood":
        assert found["neighbours"] < 0.85 * without["neighbours"]
    # Of 250 instances the standard error is .025.
    assert found["recall"] > without["recall"] - (0.06 if term == "neighbourhood" else 0.03)
