"""FCID: codes that modalities share, from the floors of its behaviour to the model folder."""

import math

import numpy as np
import pytest
import torch

from pmrl_cli.batch import Inputs
from pmrl_cli.encoders import encoder_from_state, encoder_state
from pmrl_cli.encoders.protocol import Init
from pmrl_cli.methods import make_method
from pmrl_cli.terms.weighted import WeightedTerms

CLASSES, CODES, NAMES = 10, 32, ("a", "b", "c")


def toy(n=1500, seed=0):
    """Three modalities of what they share (classes, and less between instances) and what is their own."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, CLASSES, n)
    shared = rng.normal(size=(CLASSES, 12))[classes] + 0.35 * rng.normal(size=(n, 12))
    components = []
    for _ in NAMES:
        both = np.concatenate([shared, rng.normal(size=(n, 8))], axis=1)
        seen = np.tanh(both @ rng.normal(size=(20, 32)) / 5) + 0.05 * rng.normal(size=(n, 32))
        components.append(torch.from_numpy(seen - seen.mean(0)).float())
    return components, classes


def build(components, **settings):
    torch.manual_seed(0)
    method = make_method("fcid", {"codes": CODES, **settings})
    init = Init(tuple(torch.randn(c.shape[1], 16) / 6 for c in components), NAMES, hidden=64, dropout=0.0)
    encoder = method.encoder(init)
    terms = WeightedTerms(method.terms())
    for term in terms.terms:
        encoder = term.extend(encoder, init)
    return method, encoder, terms


def train(components, encoder, terms, *, rows, steps):
    optimiser = torch.optim.AdamW([*encoder.parameters(), *terms.parameters()], lr=3e-3)
    for _ in range(steps):
        some = torch.randint(rows, (128,))
        inputs = Inputs([c[some] for c in components], torch.ones(128, len(NAMES), dtype=torch.bool))
        optimiser.zero_grad()
        terms(encoder(inputs), inputs).value.backward()
        optimiser.step()


def codes_of(encoder, components):
    encoder.eval()
    with torch.no_grad():
        vectors = encoder(Inputs(components, torch.ones(len(components[0]), len(NAMES), dtype=torch.bool))).vectors
    return encoder.codebook.nearest(vectors).numpy()


def test_modalities_share_codes_and_a_classifier_of_codes():
    # Floors: same code .5, classifier of one modality's codes on another's .8, half of the codes used.
    components, classes = toy()
    _, encoder, terms = build(components)
    before = codes_of(encoder, components)
    encoder.train()
    train(components, encoder, terms, rows=1000, steps=120)
    codes = codes_of(encoder, components)

    def agreement(codes):
        return np.mean([(codes[1000:, m] == codes[1000:, n]).mean() for m, n in ((0, 1), (0, 2), (1, 2))])

    assert agreement(before) < 0.2
    assert agreement(codes) >= 0.5
    counts = np.zeros((CODES, CLASSES))
    np.add.at(counts, (codes[:1000, 0], classes[:1000]), 1)
    assert (counts[codes[1000:, 1]].argmax(1) == classes[1000:]).mean() >= 0.8
    assert len(np.unique(codes)) >= CODES / 2


def loss_of(components, present, *, spoil=0.0, training=False):
    _, encoder, terms = build(components)
    encoder.train(training)
    terms.train(training)
    shown = [torch.where(present[:, [m]], c, torch.full_like(c, spoil)) for m, c in enumerate(components)]
    return encoder, terms, terms(encoder(Inputs(shown, present)), Inputs(shown, present))


def test_absent_modalities_change_nothing():
    components, _ = toy(60)
    present = torch.rand(60, 3, generator=torch.Generator().manual_seed(0)) < 0.6
    values = {spoil: float(loss_of(components, present, spoil=spoil)[2].value.detach()) for spoil in (0.0, 3.0)}
    assert values[0.0] == pytest.approx(values[3.0], rel=1e-6)


@torch.no_grad()
def test_parts_are_those_of_loops():
    components, _ = toy(12)
    present = torch.rand(12, 3, generator=torch.Generator().manual_seed(1)) < 0.7
    encoder, terms, _ = loss_of(components, present)
    codes = terms.terms[1]
    inputs = Inputs([c.masked_fill(~present[:, [m]], 0) for m, c in enumerate(components)], present)
    encoded = encoder(inputs)
    _, parts = codes(encoded, inputs)
    errors, likelihoods, bounds = [], [], []
    for m in range(3):
        rows = [i for i in range(12) if present[i, m]]
        g, s = encoded.vectors[:, m], encoded.extra["specific"][:, m]
        mean, log_variance = codes.densities[m](g)

        def density(i, j, mean=mean, log_variance=log_variance, s=s):
            z = (s[j] - mean[i]) ** 2 / log_variance[i].exp() + log_variance[i] + math.log(2 * math.pi)
            return float(-z.sum() / 2)

        likelihoods.append(sum(density(i, i) for i in rows) / len(rows))
        others = sum(sum(density(i, j) for j in rows) / len(rows) for i in rows) / len(rows)
        bounds.append(max(0.0, likelihoods[-1] - others))
        each = []
        for i in rows:
            nearest = min(encoder.codes(), key=lambda code, i=i, g=g: float(((g[i] - code) ** 2).sum()))
            made = codes.decoders[m](torch.cat([nearest, s[i]]))
            each.append(float(((made - inputs.components[m][i]) ** 2).mean()))
        errors.append(sum(each) / len(each))
    assert float(parts["reconstruction"]) == pytest.approx(sum(errors) / 3, rel=1e-5)
    assert float(parts["information"]) == pytest.approx(sum(bounds) / 3, rel=1e-3, abs=1e-4)
    value = codes(encoded, inputs).value
    composed = 1.5 * parts["codes"] + parts["commitment"] + parts["information"] + parts["reconstruction"]
    assert float(value) == pytest.approx(float(composed) - sum(likelihoods) / 3, rel=1e-5)


def test_the_bound_moves_what_is_specific_and_not_what_is_shared():
    components, _ = toy(40)
    _, encoder, terms = build(components)
    inputs = Inputs(components, torch.ones(40, 3, dtype=torch.bool))
    codes = terms.terms[1].eval()
    encoded = encoder(inputs)
    without = torch.autograd.grad(codes(encoded, inputs).value, encoded.vectors, retain_graph=True)[0]
    codes.information = 100.0
    found = torch.autograd.grad(
        codes(encoded, inputs).value, [encoded.vectors, encoded.extra["specific"]], retain_graph=True
    )
    torch.testing.assert_close(found[0], without)
    assert float(found[1].abs().sum()) > 0


def test_the_codebook_learns_in_training_alone():
    components, _ = toy(60)
    everywhere = torch.ones(60, 3, dtype=torch.bool)
    for training in (False, True):
        _, fresh, _ = build(components)
        encoder, _, _ = loss_of(components, everywhere, training=training)
        assert torch.equal(encoder.codes(), fresh.codes()) != training


def test_it_is_read_back_as_it_was_written():
    components, _ = toy(60)
    _, encoder, terms = build(components)
    train(components, encoder, terms, rows=60, steps=3)
    encoder.eval()
    again = encoder_from_state(*encoder_state(encoder))
    inputs = Inputs(components, torch.ones(60, 3, dtype=torch.bool))
    with torch.no_grad():
        first, second = encoder(inputs), again(inputs)
    torch.testing.assert_close(second.vectors, first.vectors)
    torch.testing.assert_close(second.extra["specific"], first.extra["specific"])
    assert torch.equal(again.codes(), encoder.codes())


def test_the_criterion_wants_codes_that_agree_and_differ():
    components, _ = toy(60)
    method, encoder, _ = build(components)
    inputs = Inputs(components, torch.ones(60, 3, dtype=torch.bool))
    vectors = torch.nn.functional.normalize(torch.randn(60, 1, 16), dim=2).expand(60, 3, 16)
    same = vectors[:1].expand(60, 3, 16)
    apart = torch.nn.functional.normalize(torch.randn(60, 3, 16), dim=2)

    def evaluated(vectors):
        return method.criterion(encoder, encoder(inputs)._replace(vectors=vectors), inputs)

    assert evaluated(same) == 0
    assert evaluated(apart) < 0.5 < evaluated(vectors)
