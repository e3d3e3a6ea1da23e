"""A toy on which a system must show what it promises: factors that modalities share, and factors of one alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pmrl_cli.batch import Inputs
from pmrl_cli.encoders.protocol import Init
from pmrl_cli.terms import make_term
from pmrl_cli.terms.weighted import WeightedTerms


@dataclass
class Toy:
    """Instances of K modalities.

    Args:
        inputs: whitened components, all present.
        shared: (n, s) factors of all modalities.
        unique: per modality (n, u) factors of its own.
        classes: (n,) of the shared factors.
    """

    inputs: Inputs
    shared: Tensor
    unique: list[Tensor]
    classes: Tensor

    def rows(self, index):
        inputs = Inputs([c[index] for c in self.inputs.components], self.inputs.present[index])
        return Toy(inputs, self.shared[index], [u[index] for u in self.unique], self.classes[index])


def toy(n, *, modalities=3, shared=6, unique=4, width=24, classes=6, noise=0.3, bend=0.0, seed=0, spread=False):
    """Components are rotated factors with noise; ``bend`` mixes in a nonlinear map of them.

    They are whitened, or with ``spread`` keep the variances of the principal axes, 1 on average.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    labels = torch.arange(n) % classes
    factors = 1.2 * normal(classes, shared)[labels] + normal(n, shared)
    own = [normal(n, unique) for _ in range(modalities)]
    components = []
    for m in range(modalities):
        both = torch.cat([factors, own[m]], 1)
        straight = both @ normal(both.shape[1], width)
        bent = torch.tanh(both @ normal(both.shape[1], 32)) @ normal(32, width)
        raw = straight / straight.std() + bend * bent / bent.std() + noise * normal(n, width)
        centred = raw - raw.mean(0)
        values, axes = torch.linalg.eigh(centred.T @ centred / n)
        scale = values.mean().expand_as(values) if spread else values + 0.05 * values.mean()
        components.append(centred @ axes / scale.sqrt())
    return Toy(Inputs(components, torch.ones(n, modalities, dtype=torch.bool)), factors, own, labels)


def start(data, dim, *, hidden=32, dropout=0.0):
    """Maps to the leading directions that the modalities share: GCCA of whitened components."""
    components = data.inputs.components
    stacked = torch.cat([*components], 1)
    _, axes = torch.linalg.eigh(stacked.T @ stacked)
    leading = axes[:, -dim:].flip(1)
    maps, place = [], 0
    for c in components:
        part = leading[place : place + c.shape[1]]
        place += c.shape[1]
        maps.append(part * (dim / (c @ part).square().sum(1).mean()).sqrt())
    names = tuple(f"m{m}" for m in range(len(components)))
    whiten = tuple(torch.ones(c.shape[1]) for c in components)
    return Init(tuple(maps), names, hidden=hidden, dropout=dropout, whiten=whiten, sample=data.inputs)


def train(method, data, init, *, added=None, steps=150, batch=128, learning_rate=3e-3, seed=0):
    """Return the encoder that a method makes of the data, in evaluation mode, and the terms."""
    torch.manual_seed(seed)
    encoder = method.encoder(init)
    terms = WeightedTerms(method.terms(), {name: (weight, make_term(name)) for name, weight in (added or {}).items()})
    for term in terms.terms:
        encoder = term.extend(encoder, init)
    parameters = [*encoder.parameters(), *terms.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.01, fused=True)
    for _ in range(steps):
        inputs = data.rows(torch.randperm(len(data.classes))[:batch]).inputs
        loss = terms(encoder(inputs), inputs)
        optimiser.zero_grad()
        loss.value.backward()
        optimiser.step()
    return encoder.eval(), terms


def recall(vectors):
    """Recall at 1, the mean over ordered pairs of modalities."""
    found = []
    for m in range(vectors.shape[1]):
        for n in range(vectors.shape[1]):
            if m != n:
                nearest = (vectors[:, m] @ vectors[:, n].T).argmax(1)
                found.append((nearest == torch.arange(len(vectors))).float().mean())
    return torch.stack(found).mean().item()


def r_squared(seen, wanted, ridge=1.0):
    """Share of variance that a linear map, fitted on one half, explains on the other."""
    half = len(seen) // 2
    x = torch.cat([seen, torch.ones(len(seen), 1)], 1)
    gram = x[:half].T @ x[:half] + ridge * torch.eye(x.shape[1])
    left = wanted[half:] - x[half:] @ torch.linalg.solve(gram, x[:half].T @ wanted[:half])
    return 1 - (left.square().sum() / (wanted[half:] - wanted[:half].mean(0)).square().sum()).item()


def probe(seen, labels, ridge=1.0):
    """Accuracy on one half of a linear classifier fitted, by least squares, on the other."""
    half = len(seen) // 2
    x = torch.cat([seen, torch.ones(len(seen), 1)], 1)
    wanted = torch.nn.functional.one_hot(labels).float()
    gram = x[:half].T @ x[:half] + ridge * torch.eye(x.shape[1])
    scores = x[half:] @ torch.linalg.solve(gram, x[:half].T @ wanted[:half])
    return (scores.argmax(1) == labels[half:]).float().mean().item()
