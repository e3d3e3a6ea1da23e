"""Instances that show the same thing are no negatives of each other: value and gradient against float64 loops."""

import pytest
import torch
from torch.nn.functional import normalize, softplus

from pmrl_cli.batch import Encoded, Inputs
from pmrl_cli.methods import make_method
from pmrl_cli.spectrum import leave_one_out_directions, spectrum
from pmrl_cli.terms.contrast import PairwiseContrast, matches
from pmrl_cli.terms.gram import SMOOTHING, VolumeContrast, volumes
from pmrl_cli.terms.leave_one_out import LeaveOneOutContrast
from pmrl_cli.terms.principal import Principal
from pmrl_cli.terms.published import PublishedPrincipal
from pmrl_cli.terms.siglip import PairwiseSigmoid
from pmrl_cli.terms.symile import MultilinearContrast, draw_shuffles
from pmrl_cli.terms.triangle import AreaContrast, areas
from tests.reference.agreement import ON_VECTORS

MATCH = torch.tensor([0, 1, 0, 2, 2, 2, 3, 1])
TEMPERATURE = 0.2


def draw(modalities, seed=0, *, complete=False):
    generator = torch.Generator().manual_seed(seed)
    vectors = normalize(torch.randn(8, modalities, 5, generator=generator, dtype=torch.float64), dim=-1)
    present = torch.rand(8, modalities, generator=generator) < 0.75
    return vectors, present | complete


def other(i, j):
    """Whether j is a wrong answer for i."""
    return i != j and MATCH[i] != MATCH[j]


def info_nce(first, second, has_first, has_second, temperature):
    """Per instance, 0 without either vector."""
    losses = []
    for i in range(len(first)):
        loss = first.new_zeros(())
        if has_first[i] and has_second[i]:
            for asking, found, has in ((first, second, has_second), (second, first, has_first)):
                scores = [asking[i] @ found[j] / temperature for j in range(len(first)) if has[j] and other(i, j)]
                own = asking[i] @ found[i] / temperature
                loss = loss + (torch.stack([own, *scores]).logsumexp(0) - own) / 2
        losses.append(loss)
    return torch.stack(losses)


def mean_of_pairs(vectors, present, pairs):
    losses = [info_nce(vectors[:, m], vectors[:, n], present[:, m], present[:, n], TEMPERATURE) for m, n in pairs]
    both = [present[:, m] & present[:, n] for m, n in pairs]
    return torch.stack(losses).sum() / torch.stack(both).sum().clamp_min(1)


def every_pair(modalities):
    return [(m, n) for m in range(modalities) for n in range(m + 1, modalities)]


def leave_one_out(vectors, present):
    others = leave_one_out_directions(vectors, present)
    total, count = 0.0, 0
    for m in range(present.shape[1]):
        has_others = present.sum(1) > present[:, m].int()
        total += info_nce(vectors[:, m], others[:, m], present[:, m], has_others, TEMPERATURE).sum()
        count += int((present[:, m] & has_others).sum())
    return total / count


def published(vectors, present):
    singular, direction, _ = spectrum(vectors, present)
    has = [i for i in range(len(vectors)) if present[i].any()]
    total = 0.0
    for i in has:
        logits = singular[i, : int(present[i].sum())] / 0.05
        wrong = [(direction[i] @ direction[j] - 1) / TEMPERATURE for j in has if other(i, j)]
        total += logits.logsumexp(0) - logits[0] + torch.log1p(sum(torch.exp(s) for s in wrong))
    return total / len(has)


def cross_entropy(scores, can_first, can_second):
    """Mean of the smoothed cross-entropy both ways, candidates being the instance and wrong ones."""
    losses = []
    for i in range(len(scores)):
        if not (can_first[i] and can_second[i]):
            continue
        for of, can in ((scores, can_second), (scores.mT, can_first)):
            candidates = torch.stack([of[i, i], *(of[i, j] for j in range(len(scores)) if can[j] and other(i, j))])
            losses.append(candidates.logsumexp(0) - SMOOTHING * candidates.mean() - (1 - SMOOTHING) * of[i, i])
    return sum(losses) / len(losses)


def gram(vectors, present):
    known = vectors * present[..., None]
    volume = volumes(known[:, 0], known[:, 1:], present[:, 1:])
    return cross_entropy(-volume / 0.07, present[:, 0], present[:, 1:].any(1))


def triangle(vectors, present):
    known = vectors * present[..., None]
    return cross_entropy(-areas(*known.unbind(1)) / 0.07, present[:, 0], present[:, 1:].all(1))


def siglip(vectors, present):
    total, positives = 0.0, 0
    for m, n in every_pair(present.shape[1]):
        both = [i for i in range(len(vectors)) if present[i, m] and present[i, n]]
        for i in both:
            positives += 1
            total += softplus(-(vectors[i, m] @ vectors[i, n] / TEMPERATURE - 10.0))
            total += sum(softplus(vectors[i, m] @ vectors[j, n] / TEMPERATURE - 10.0) for j in both if other(i, j))
    return total / positives


def symile(vectors, present):
    rows = present.all(1).nonzero()[:, 0].tolist()
    shuffles = draw_shuffles(len(rows), present.shape[1])
    scale = vectors.shape[2] ** (present.shape[1] / 2 - 1) / TEMPERATURE
    total = 0.0
    for m in range(present.shape[1]):
        others = [n for n in range(present.shape[1]) if n != m]
        for place, i in enumerate(rows):
            own = scale * vectors[i].prod(0).sum()
            scores = [own]
            for j in range(len(rows)):
                mixed = [rows[shuffles[m, o, j]] for o in range(len(others))]
                if j != place and not all(MATCH[k] == MATCH[i] for k in mixed):
                    product = vectors[i, m]
                    for k, n in zip(mixed, others, strict=True):
                        product = product * vectors[k, n]
                    scores.append(scale * product.sum())
            total += torch.stack(scores).logsumexp(0) - own
    return total / len(rows) / present.shape[1]


CASES = {
    "pairs": (PairwiseContrast(temperature=TEMPERATURE), lambda v, p: mean_of_pairs(v, p, every_pair(p.shape[1]))),
    "anchor": (
        PairwiseContrast(temperature=TEMPERATURE, anchor=1),
        lambda v, p: mean_of_pairs(v, p, [(1, m) for m in range(p.shape[1]) if m != 1]),
    ),
    "leave one out": (LeaveOneOutContrast(temperature=TEMPERATURE), leave_one_out),
    "published": (PublishedPrincipal(temperature_instance=TEMPERATURE), published),
    "gram": (VolumeContrast(), gram),
    "siglip": (PairwiseSigmoid(temperature=TEMPERATURE), siglip),
    "symile": (MultilinearContrast(temperature=TEMPERATURE), symile),
    "triangle": (AreaContrast(), triangle),
}


def value_and_gradient(loss, vectors, present):
    vectors = vectors.clone().requires_grad_()
    torch.manual_seed(0)
    value = loss(vectors, present)
    return value.detach(), torch.autograd.grad(value, vectors)[0]


def of_term(term, match):
    return lambda vectors, present: term(Encoded(vectors, present), Inputs((), present, match=match)).value


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("modalities", [2, 3, 4, 5])
@pytest.mark.parametrize("complete", [False, True])
def test_a_contrast_without_false_negatives_is_its_formula_in_value_and_gradient(name, modalities, complete):
    if name == "triangle" and modalities != 3:
        return
    term, reference = CASES[name]
    vectors, present = draw(modalities, complete=complete or name == "symile")
    for found, expected in zip(
        value_and_gradient(of_term(term.double(), MATCH), vectors, present),
        value_and_gradient(reference, vectors, present),
        strict=True,
    ):
        torch.testing.assert_close(found, expected, rtol=2e-6, atol=1e-7)


def test_both_contrasts_of_pmrl_leave_them_out():
    vectors, present = draw(2, complete=True)  # of two modalities the two subsets are the two
    term = Principal(spectrum_weight=0, temperature_instance=TEMPERATURE).double()
    found = value_and_gradient(of_term(term, MATCH), vectors, present)
    expected = value_and_gradient(lambda v, p: 2 * mean_of_pairs(v, p, [(0, 1)]), vectors, present)
    torch.testing.assert_close(found[0], expected[0], rtol=2e-6, atol=1e-7)
    # A leading direction has unit length: along the vectors themselves it does not change.
    along, wanted = (g - (g * vectors).sum(-1, keepdim=True) * vectors for g in (found[1], expected[1]))
    torch.testing.assert_close(along, wanted, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("name", ON_VECTORS)
def test_a_match_column_without_repeats_changes_nothing(name):
    vectors, present = draw(3)
    method = make_method(name, {})
    for _, term in method.terms():
        plain, said = (
            value_and_gradient(of_term(term.double(), match), vectors, present) for match in (None, torch.arange(8))
        )
        for one, wanted in zip(said, plain, strict=True):
            torch.testing.assert_close(one, wanted)


@pytest.mark.parametrize("name", [n for n in ON_VECTORS if n not in ("vicreg",)])
def test_a_batch_of_one_thing_has_no_negatives_and_finite_gradients(name):
    vectors, present = draw(3)
    for _, term in make_method(name, {}).terms():
        _, gradient = value_and_gradient(of_term(term.double(), torch.zeros(8, dtype=torch.int64)), vectors, present)
        assert gradient.isfinite().all()
    if name in ("infonce", "anchor"):
        assert gradient.abs().max() < 1e-9


def test_matches_are_symmetric_without_the_diagonal():
    same = matches(Inputs((), torch.ones(8, 2, dtype=torch.bool), match=MATCH))
    assert (same == same.mT).all()
    assert not same.diagonal().any()
    assert same.sum() == 2 + 2 + 6
    assert matches(Inputs((), torch.ones(8, 2, dtype=torch.bool))) is None
