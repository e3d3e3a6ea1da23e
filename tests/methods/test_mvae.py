"""mvae on a nonlinear toy: refinement closes the gap, imputation predicts, and knows how well."""

import pytest
import torch

from pmrl_cli.batch import Inputs
from pmrl_cli.encoders.gaussian import Gaussian, draw_noise, evidence_bound, product_of_posteriors, refine
from pmrl_cli.methods import make_method
from tests.methods.toy import probe, r_squared, start, toy, train


@pytest.fixture(scope="module")
def fitted():
    data = toy(500, shared=5, unique=2, noise=0.4, bend=0.7, spread=True)
    training, held = data.rows(torch.arange(350)), data.rows(torch.arange(350, 500))
    encoder, terms = train(make_method("mvae", {"hidden": 48}), training, start(training, 10), steps=100)
    return encoder, terms.terms[0], data, held


def best_posterior(posterior, bound, steps=120):
    """Maximise the bound of each instance by itself."""
    mean, log_variance = (part.clone().requires_grad_() for part in posterior)
    optimiser = torch.optim.Adam([mean, log_variance], lr=0.05)
    for _ in range(steps):
        optimiser.zero_grad()
        (-bound(Gaussian(mean, log_variance)).sum()).backward()
        optimiser.step()
    return Gaussian(mean.detach(), log_variance.detach())


def test_refinement_halves_the_gap_to_the_best_posterior(fitted):
    encoder, evidence, _, held = fitted
    components, present = held.inputs.components, held.inputs.present
    torch.manual_seed(0)
    with torch.no_grad():
        first = product_of_posteriors(encoder.posteriors(held.inputs), present)
        noise = draw_noise(first, 16)
        path = refine(first, evidence.refinement, encoder.decoder_list, components, present, iterations=5, samples=2)

    def bound(posterior):
        return evidence_bound(posterior, encoder.decoder_list, components, present, noise)

    best = bound(best_posterior(first, bound)).mean().item()
    gaps = [best - bound(posterior).mean().item() for posterior in path]
    assert gaps[0] > 0
    assert gaps[-1] < 0.5 * gaps[0]


def test_the_teacher_is_a_number():
    """Regression: with its gradient the refined posterior is drawn to what one modality can say."""
    data = toy(64, modalities=2)
    _, terms = train(make_method("mvae", {"hidden": 8}), data, start(data, 4), steps=1)
    evidence = terms.terms[0]

    def gradients(weight):
        evidence.distillation = weight
        torch.manual_seed(1)
        encoded = evidence._encoders[0](data.inputs)
        value = evidence(encoded, data.inputs).value
        return torch.autograd.grad(value, list(evidence.refinement.parameters()))

    for without, beside in zip(gradients(0.0), gradients(10.0), strict=True):
        torch.testing.assert_close(without, beside)


def test_a_missing_modality_is_predicted_and_the_deviation_says_how_well(fitted):
    encoder, _, data, held = fitted
    for m in range(3):
        present = held.inputs.present.clone()
        present[:, m] = False
        components = [c * present[:, i, None] for i, c in enumerate(held.inputs.components)]
        with torch.no_grad():
            imputed = encoder.impute(Inputs(components, present))
        wanted = held.inputs.components[m]
        errors = imputed.components[m] - wanted
        explained = 1 - errors.square().sum() / (wanted - wanted.mean(0)).square().sum()
        others = torch.cat([c for i, c in enumerate(data.inputs.components) if i != m], 1)
        assert explained > 0.5
        assert explained > r_squared(others, data.inputs.components[m]) - 0.03
        within = (errors.abs() < imputed.deviations[m]).float().mean()
        assert 0.6 < within < 0.87  # .683 of a Gaussian, when the noise is learned to the end


def test_class_probes_of_one_modality_are_as_good_as_on_its_features(fitted):
    encoder, _, _, held = fitted
    with torch.no_grad():
        vectors = encoder(held.inputs).vectors
    for m in range(3):
        found, raw = probe(vectors[:, m], held.classes), probe(held.inputs.components[m], held.classes)
        assert found >= raw - 0.01


def test_no_modality_gives_the_prior(fitted):
    encoder, _, _, held = fitted
    nothing = Inputs([torch.zeros_like(c) for c in held.inputs.components], torch.zeros_like(held.inputs.present))
    with torch.no_grad():
        imputed = encoder.impute(nothing)
        known = encoder.impute(held.inputs)
    for without, beside in zip(imputed.deviations, known.deviations, strict=True):
        assert (without.mean(0) > beside.mean(0) - 1e-3).all()
    torch.testing.assert_close(imputed.components[0], imputed.components[0][:1].expand_as(imputed.components[0]))
