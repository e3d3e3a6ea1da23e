"""Whether what a method minimises agrees, in value and gradient, with loops written from its formula."""

import torch
from torch import nn
from torch.nn.functional import normalize

from pmrl_cli.batch import SINGLE, Encoded, Inputs
from pmrl_cli.methods import REGISTRY, make_method, method_class
from pmrl_cli.methods.protocol import Method
from pmrl_cli.terms.weighted import WeightedTerms

ON_VECTORS = [
    name
    for name in REGISTRY
    if method_class(name).encoder is Method.encoder and "labels" not in method_class(name).needs
]
"""Methods whose loss is one of the embeddings alone."""


class Objective(nn.Module):
    """The weighted terms of a method on embeddings as if an encoder had made them."""

    def __init__(self, method):
        super().__init__()
        self.method, self.terms = method, WeightedTerms(method.terms())

    def forward(self, embeddings, present, group=SINGLE, **inputs):
        return self.terms(Encoded(embeddings, present), Inputs([], present, **inputs), group)


def make_objective(name, settings):
    return Objective(make_method(name, settings))


def draw(batch, modalities, dim, *, shared=1.0, seed=0):
    """Unit vectors (B, K, d) float64 with something in common, and a (B, K) mask of about 7 in 10."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(batch, modalities, dim, generator=generator, dtype=torch.float64)
    vectors += shared * torch.randn(batch, 1, dim, generator=generator, dtype=torch.float64)
    return normalize(vectors, dim=-1), torch.rand(batch, modalities, generator=generator) < 0.7


def agrees(name, settings, reference, embeddings, present, *, rtol=1e-6):
    """Assert that the objective is ``reference(embeddings, present)``, a float64 loop that autograd can follow.

    Gradients are compared through normalisation, as the adapters see them: on the sphere.
    """
    objective = make_objective(name, settings).double()
    outcomes = []
    for function in (lambda z: objective(z, present).value, lambda z: reference(z, present)):
        torch.manual_seed(0)
        vectors = embeddings.clone().requires_grad_()
        value = function(normalize(vectors, dim=-1))
        (gradient,) = torch.autograd.grad(value, vectors)
        outcomes.append((value.detach(), gradient))
    (found, found_gradient), (wanted, wanted_gradient) = outcomes
    torch.testing.assert_close(found, wanted, rtol=rtol, atol=1e-9)
    scale = wanted_gradient.abs().max().item()
    assert scale > 1e-4
    torch.testing.assert_close(found_gradient, wanted_gradient, rtol=rtol, atol=10 * rtol * scale)


def softmax_loss(scores, target):
    """-log of the target's share of the softmax, one score at a time (a dict of scalars)."""
    return torch.log(sum(torch.exp(score - scores[target]) for score in scores.values()))


def smoothed_loss(scores, target, smoothing):
    """Cross-entropy with label smoothing: (1 - s) on the target, s spread evenly over all."""
    even = sum(softmax_loss(scores, candidate) for candidate in scores) / len(scores)
    return (1 - smoothing) * softmax_loss(scores, target) + smoothing * even


def contrast_of_tuples(score, asks, tuples):
    """Mean smoothed loss over instances: an anchor against all tuples, and a tuple against all anchors.

    Args:
        score: (i, j) -> logit of the anchor of instance i with the other modalities of instance j.
        asks: instances that have the anchor.
        tuples: instances that have the others.
    """
    terms = []
    for i in asks:
        if i in tuples:
            terms.append(smoothed_loss({j: score(i, j) for j in tuples}, i, 0.1))
            terms.append(smoothed_loss({j: score(j, i) for j in asks}, i, 0.1))
    return sum(terms) / len(terms)
