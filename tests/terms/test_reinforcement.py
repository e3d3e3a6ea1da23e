"""Reinforcement of weak modalities: the loss by loops, whom its gradient touches, and what it does for a weak one."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from pmrl_cli.batch import Encoded, Inputs
from pmrl_cli.encoders.protocol import Init
from pmrl_cli.encoders.residual import Residual
from pmrl_cli.errors import UsageError
from pmrl_cli.information.shapley import shapley_weights
from pmrl_cli.terms.reinforcement import LEAST, Reinforcement, contributions, modality_weights


def build(modalities, dim, classes, **settings):
    torch.manual_seed(0)
    term = Reinforcement(**settings)
    maps = tuple(torch.zeros(3, dim) for _ in range(modalities))
    term.extend(None, Init(maps, tuple("abcdef"[:modalities]), hidden=0, dropout=0.0, classes=classes))
    for parameter in term.parameters():  # a head that says something of everything
        torch.nn.init.normal_(parameter, std=0.5)
    return term.double()


def batch(modalities, rows=9, dim=5, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    vectors = functional.normalize(
        torch.randn(rows, modalities, dim, generator=generator, dtype=torch.float64), dim=2
    ).requires_grad_()
    present = torch.rand(rows, modalities, generator=generator) < 0.75
    present[0] = True
    present[1] = False
    present[1, 0] = True
    labels = torch.randint(classes, (rows,), generator=generator)
    labels[-1] = -1
    return vectors, present, labels


def loss_by_loops(term, vectors, present, labels, balance):
    modalities = vectors.shape[1]
    head, weights_of = term.head, shapley_weights(modalities)

    def loss(i, amounts):
        hidden = sum(
            (amounts[m] * (vectors[i, m] @ head.enter[m] + head.offset[m]) for m in amounts),
            torch.zeros(head.leave.in_features, dtype=torch.float64),
        )
        logits = head.leave(functional.gelu(hidden))
        for m, amount in amounts.items():
            logits = logits + amount * (vectors[i, m] @ head.direct[m])
        return -logits.log_softmax(0)[labels[i]]

    rows = [i for i in range(len(vectors)) if labels[i] >= 0]
    has = {i: [m for m in range(modalities) if present[i, m]] for i in rows}
    values = {}
    for i in rows:
        for subset in range(2**modalities):
            values[i, subset] = -loss(i, {m: 1.0 for m in has[i] if subset >> m & 1})
    phi, live = {}, []
    for m in range(modalities):
        total, count = torch.zeros((), dtype=torch.float64), 0
        for i in rows:
            if m not in has[i]:
                continue
            each = torch.zeros((), dtype=torch.float64)
            for subset in range(2**modalities):
                value = values[i, subset] if subset >> m & 1 else values[i, subset].detach()
                each = each + weights_of[m, subset] * value
            phi[i, m] = float(each.detach())
            total, count = total + each, count + 1
        live.append(total / max(1, count))
    means = [float(one.detach()) for one in live]
    known = [max(LEAST, one) for one in means]
    w = [min(4, max(1 / 4, (sum(known) - one) / (modalities - 1) / one)) for one in known]

    several = [
        -values[i, subset]
        for i in rows
        for subset in range(2**modalities)
        if bin(subset).count("1") > 1 and all(m in has[i] for m in range(modalities) if subset >> m & 1)
    ]
    fused = [loss(i, {m: w[m] ** 0.5 for m in has[i]}) for i in rows if has[i]]
    alone = torch.zeros((), dtype=torch.float64)
    for m in range(modalities):
        terms = []
        for i in rows:
            if m not in has[i]:
                continue
            most = max(phi[i, n] for n in has[i])
            weakest = len(has[i]) > 1 and phi[i, m] == min(phi[i, n] for n in has[i])
            again = 1 - min(1, max(0, phi[i, m] / max(LEAST, most))) if weakest else 0
            terms.append((1 + again) * -values[i, 1 << m])
        alone = alone + max(w[m], 1) * sum(terms) / max(1, len(terms))
    spread = max(means) - live[int(np.argmin(means))]
    return sum(several) / max(1, len(several)) + sum(fused) / len(fused) / 2 + alone + balance * spread


@pytest.mark.parametrize("modalities", [2, 3, 4])
def test_value_and_gradient_are_those_of_the_loops(modalities):
    term = build(modalities, 5, 3, balance=0.3)
    vectors, present, labels = batch(modalities)
    found = term(Encoded(vectors, present), Inputs([], present, labels)).value
    expected = loss_by_loops(term, vectors, present, labels, 0.3)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    sought = [vectors, term.head.direct, term.head.enter, term.head.leave.weight]
    for one, other in zip(torch.autograd.grad(found, sought), torch.autograd.grad(expected, sought), strict=True):
        assert (one - other).abs().max() < 1e-6


def test_raising_the_weakest_unlearns_nothing_of_the_others():
    losses = torch.rand(6, 4, dtype=torch.float64, requires_grad=True)
    has = torch.ones(6, 2, dtype=torch.bool)
    _, means = contributions(losses, has, torch.from_numpy(shapley_weights(2)))
    (gradient,) = torch.autograd.grad(-means[1], losses)
    assert float(gradient[:, [0, 1]].abs().max()) == 0  # the subsets without modality 1
    assert float(gradient[:, [2, 3]].min()) > 0  # less loss with it


def test_contributions_add_up_to_what_all_say():
    losses = torch.rand(7, 8, dtype=torch.float64)
    of_each, _ = contributions(losses, torch.ones(7, 3, dtype=torch.bool), torch.from_numpy(shapley_weights(3)))
    torch.testing.assert_close(of_each.sum(1), losses[:, 0] - losses[:, 7])


def test_weights_raise_the_weak_within_a_limit():
    assert modality_weights(torch.tensor([0.4, 0.2])).tolist() == pytest.approx([0.5, 2.0])
    assert modality_weights(torch.tensor([0.4, -0.1])).tolist() == pytest.approx([0.25, 4.0])
    assert modality_weights(torch.tensor([0.3, 0.3, 0.3])).tolist() == pytest.approx([1, 1, 1])
    # A ratio with a negative part would turn a sign: the published valuation can be negative.
    assert modality_weights(torch.tensor([-0.2, -0.1])).tolist() == pytest.approx([1, 1])


def test_instances_without_a_label_weigh_nothing():
    term = build(3, 5, 3).eval()
    vectors, present, labels = batch(3)
    alone = term(Encoded(vectors, present), Inputs([], present, torch.full_like(labels, -1))).value
    gradient = torch.autograd.grad(alone, vectors)[0]
    assert float(gradient.abs().max()) == 0
    known = labels >= 0
    all_of_them = term(Encoded(vectors, present), Inputs([], present, labels)).value
    labelled = term(Encoded(vectors[known], present[known]), Inputs([], present[known], labels[known])).value
    assert float(all_of_them.detach()) == pytest.approx(float(labelled.detach()))


def test_a_modality_that_no_instance_has_keeps_its_average():
    term = build(2, 5, 3)
    vectors, present, labels = batch(2)
    term(Encoded(vectors, present), Inputs([], present, labels))
    before = term.contributions.clone()
    absent = present & torch.tensor([True, False])
    term(Encoded(vectors, absent), Inputs([], absent, labels))
    assert float(term.contributions[1]) == float(before[1])
    assert float(term.contributions[0]) != float(before[0])


def test_seven_modalities_are_refused():
    with pytest.raises(UsageError, match="6 or fewer"):
        Reinforcement().check(7)


def toy(seed, n=3000, classes=8, width=64, informative=8):
    """A strong and a weak modality of a label, each with directions that say nothing."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    components = []
    for strength, noise in ((1.0, 0.9), (0.5, 0.5)):
        means = strength * torch.randn(classes, informative, generator=generator)
        signal = means[labels] + noise * torch.randn(n, informative, generator=generator)
        rest = 0.7 * torch.randn(n, width - informative, generator=generator)
        rotation, _ = torch.linalg.qr(torch.randn(width, width, generator=generator))
        components.append(torch.cat([signal, rest], dim=1) @ rotation)
    return components, labels


def probe(vectors, labels, train):
    """Accuracy of a ridge classifier on the instances that it was not fitted on."""
    inputs = torch.cat([vectors, torch.ones(len(vectors), 1)], dim=1).double()
    targets = functional.one_hot(labels).double()
    gram = inputs[:train].mT @ inputs[:train] + 0.1 * torch.eye(inputs.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(gram, inputs[:train].mT @ targets[:train])
    return float(((inputs[train:] @ weights).argmax(1) == labels[train:]).double().mean())


def accuracies(components, labels, *, reinforced, seed):
    torch.manual_seed(seed)
    maps = tuple(torch.randn(c.shape[1], 4) / c.shape[1] ** 0.5 for c in components)
    encoder = Residual(maps, ("a", "b"), hidden=64, dropout=0.0)
    term = Reinforcement()
    term.extend(encoder, Init(maps, ("a", "b"), hidden=64, dropout=0.0, classes=8))
    optimiser = torch.optim.AdamW([*encoder.parameters(), *term.parameters()], lr=2e-3, weight_decay=0.01)
    present = torch.ones(128, 2, dtype=torch.bool)
    for _ in range(150):
        rows = torch.randint(1000, (128,))
        inputs = Inputs([c[rows] for c in components], present, labels[rows])
        encoded = encoder(inputs)
        if reinforced:
            loss = term(encoded, inputs).value
        else:  # the label from all modalities together, alone
            loss = functional.cross_entropy(term.head(encoded.vectors, torch.ones(128, 1, 2))[:, 0], labels[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        vectors = encoder.eval()(Inputs(components, torch.ones(len(labels), 2, dtype=torch.bool))).vectors
    return [probe(v, labels, 1000) for v in (vectors[:, 0], vectors[:, 1], vectors.flatten(1))]


def test_a_weak_modality_is_strengthened_and_a_strong_one_not_weakened():
    # Floors: weak + .02, strong - .01, both together - .005, against the loss of both together alone.
    found = []
    for seed in range(2):
        components, labels = toy(seed)
        found.append([accuracies(components, labels, reinforced=r, seed=seed) for r in (False, True)])
    joint, reinforced = np.mean(found, axis=0)
    strong, weak, fused = reinforced - joint
    assert weak >= 0.02
    assert strong >= -0.01
    assert fused >= -0.005
