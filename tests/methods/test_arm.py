"""ARM: weights in the model, vectors that ask for no label, and what a fit is stopped by."""

import pytest
import torch
from torch.nn.functional import normalize

from pmrl_cli.batch import Encoded, Inputs
from pmrl_cli.encoders import encoder_from_state, encoder_state
from pmrl_cli.encoders.protocol import Init
from pmrl_cli.errors import UsageError
from pmrl_cli.methods import make_method
from pmrl_cli.terms.weighted import WeightedTerms

ROWS, DIM = 40, 6


def build():
    torch.manual_seed(0)
    method = make_method("arm", {})
    init = Init((torch.randn(5, DIM), torch.randn(7, DIM)), ("a", "b"), hidden=8, dropout=0.0, classes=3)
    encoder = method.encoder(init)
    terms = WeightedTerms(method.terms())
    for term in terms.terms:
        encoder = term.extend(encoder, init)
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(3, (ROWS,), generator=generator)
    components = [torch.randn(ROWS, p, generator=generator) for p in (5, 7)]
    components[0][:, 0] += 3 * labels  # the first says much of the label, the second nothing
    return method, encoder, terms, Inputs(components, torch.ones(ROWS, 2, dtype=torch.bool), labels)


def trained():
    method, encoder, terms, inputs = build()
    optimiser = torch.optim.AdamW([*encoder.parameters(), *terms.parameters()], lr=1e-2)
    for _ in range(30):
        optimiser.zero_grad()
        terms(encoder(inputs), inputs).value.backward()
        optimiser.step()
    return method, encoder.eval(), terms.eval(), inputs


def test_the_modality_that_says_less_weighs_more_in_the_model():
    _, encoder, terms, inputs = trained()
    contributions = terms.terms[1].contributions
    assert contributions[0] > contributions[1]
    assert encoder.weights[1] > 1 > encoder.weights[0]
    vectors, _, extra = encoder(inputs)
    expected = normalize(encoder.weights[0].sqrt() * vectors[:, 0] + encoder.weights[1].sqrt() * vectors[:, 1], dim=1)
    torch.testing.assert_close(extra["fused"], expected)


def test_one_modality_alone_is_the_fused_vector():
    _, encoder, _, inputs = trained()
    alone = inputs._replace(present=torch.tensor([True, False]).expand(ROWS, 2))
    vectors, _, extra = encoder(alone)
    torch.testing.assert_close(extra["fused"], vectors[:, 0])


def test_vectors_ask_for_no_label():
    # The published code weights the fusion by the true class in testing too.
    _, encoder, _, inputs = trained()
    without = encoder(inputs._replace(labels=None))
    other = encoder(inputs._replace(labels=(inputs.labels + 1) % 3))
    for found in (without, other):
        assert torch.equal(found.vectors, encoder(inputs).vectors)
        assert torch.equal(found.extra["fused"], encoder(inputs).extra["fused"])


def test_it_is_read_back_as_it_was_written():
    _, encoder, _, inputs = trained()
    again = encoder_from_state(*encoder_state(encoder))
    torch.testing.assert_close(again(inputs).extra["fused"], encoder(inputs).extra["fused"])
    assert torch.equal(again.weights, encoder.weights)


def test_evaluation_changes_no_weight():
    _, encoder, terms, inputs = trained()
    before = encoder.weights.clone(), terms.terms[1].contributions.clone()
    terms(encoder(inputs), inputs)
    assert torch.equal(encoder.weights, before[0])
    assert torch.equal(terms.terms[1].contributions, before[1])


def test_a_fit_is_stopped_by_the_nearest_mean_of_the_other_instances():
    method, encoder, _, inputs = build()
    generator = torch.Generator().manual_seed(2)
    vectors = normalize(torch.randn(ROWS, 2, DIM, generator=generator), dim=2)
    inputs.labels[5] = -1
    inputs.present[7, 1] = False
    found = method.criterion(encoder, Encoded(vectors, inputs.present), inputs)
    rates = []
    for m in range(2):
        rows = [i for i in range(ROWS) if inputs.present[i, m] and inputs.labels[i] >= 0]
        right = []
        for i in rows:
            distances = {}
            for label in range(3):
                others = [vectors[j, m] for j in rows if int(inputs.labels[j]) == label and j != i]
                distances[label] = float((vectors[i, m] - torch.stack(others).mean(0)).norm())
            right.append(min(distances, key=distances.get) == int(inputs.labels[i]))
        rates.append(sum(right) / len(right))
    assert found == pytest.approx(sum(rates) / 2)


def test_seven_modalities_are_refused():
    with pytest.raises(UsageError, match="6 or fewer"):
        make_method("arm", {}).check(7)
