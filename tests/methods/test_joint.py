"""The joint encoder and the consistency it trains on, against loops, and what it makes of single modalities."""

import math

import pytest
import torch

from pmrl_cli.batch import Encoded, Inputs
from pmrl_cli.encoders.joint import Joint, Views
from pmrl_cli.terms.unified import UnifiedConsistency


def generator(seed):
    return torch.Generator().manual_seed(seed)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def loss_by_loops(alone, decoded, present, consistency, variance_weight):
    rows, modalities, width = alone.shape
    z, u, has = alone.tolist(), decoded.tolist(), present.tolist()
    intra, inter, hinges, covariances = [], [], [], []
    for i in range(rows):
        own = [m for m in range(modalities) if has[i][m]]
        for m in own:
            intra += [(z[i][m][d] - u[i][m][d]) ** 2 for d in range(width)]
            if len(own) > 1:
                inter += [(z[i][m][d] - sum(z[i][n][d] for n in own) / len(own)) ** 2 for d in range(width)]
    for of in (z, u):
        for m in range(modalities):
            own = [of[i][m] for i in range(rows) if has[i][m]]
            if len(own) < 2:
                continue
            mean = [sum(row[d] for row in own) / len(own) for d in range(width)]
            covariance = [
                [sum((r[a] - mean[a]) * (r[b] - mean[b]) for r in own) / (len(own) - 1) for b in range(width)]
                for a in range(width)
            ]
            hinges.append(sum(max(0.0, 1 - math.sqrt(covariance[d][d] + 1e-4)) for d in range(width)) / width)
            covariances.append(
                sum(covariance[a][b] ** 2 for a in range(width) for b in range(width) if a != b) / width
            )

    def mean(values):
        return sum(values) / len(values) if values else 0.0

    spread = variance_weight * mean(hinges) + mean(covariances)
    return consistency * (mean(intra) + mean(inter)) + 2 * spread


def term_of(alone, decoded, present, **settings):
    encoded = Encoded(alone[..., :1], present, {"projected": alone, "decoded": decoded})
    return UnifiedConsistency(**settings)(encoded, Inputs([], present)).value


@pytest.mark.parametrize("modalities", [2, 3, 5])
def test_the_term_against_loops(modalities):
    alone, decoded = draw(7, modalities, 4), draw(7, modalities, 4, seed=1)
    present = torch.rand(7, modalities, generator=generator(2)) > 0.4
    for some in (torch.ones_like(present), present):
        found = term_of(alone, decoded, some, consistency=3.0, variance_weight=2.0)
        assert float(found) == pytest.approx(loss_by_loops(alone, decoded, some, 3.0, 2.0), rel=1e-10)
    garbage = alone.masked_fill(~present[..., None], 1e6)
    torch.testing.assert_close(term_of(garbage, decoded, present), term_of(alone, decoded, present))
    assert torch.autograd.gradcheck(
        lambda z, u: term_of(z, u, present), (alone.requires_grad_(), decoded.requires_grad_())
    )


def test_the_term_agrees_with_the_public_code():
    # 5 (intra + inter) + reg of the authors' pretrain.py on these, in float64: sums over three modalities there.
    index = torch.arange(60, dtype=torch.float64).reshape(5, 3, 4)
    found = term_of((index * 0.7).sin(), (index * 1.3 + 0.5).cos(), torch.ones(5, 3, dtype=torch.bool))
    assert 3 * float(found) == pytest.approx(33.73045834259077, rel=1e-9)


@pytest.mark.parametrize("present", [torch.zeros(0, 3), torch.zeros(4, 3), torch.eye(3)])
def test_the_term_is_finite_where_hardly_anything_is_there(present):
    present = present.bool()
    alone = draw(len(present), 3, 4).requires_grad_()
    value = term_of(alone, draw(len(present), 3, 4, seed=1), present)
    value.backward()
    assert value.isfinite()
    assert alone.grad.isfinite().all()
    assert (alone.grad[~present] == 0).all()


def encoder(modalities=3, dim=6, hidden=8, views=None, seed=0):
    torch.manual_seed(seed)
    starts = [torch.randn(4 + m, dim, generator=generator(seed + m)) for m in range(modalities)]
    return Joint(starts, [f"m{m}" for m in range(modalities)], hidden=hidden, dropout=0.0, views=views)


def components(rows, modalities=3, seed=5):
    return [torch.randn(rows, 4 + m, generator=generator(seed + m)) for m in range(modalities)]


def trained(joint):
    for parameter in joint.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator(parameter.numel()))
    return joint.eval()


def test_it_starts_at_the_closed_form_and_its_mean():
    joint, inputs = encoder().eval(), components(5)
    encoded = joint(Inputs(inputs, torch.ones(5, 3, dtype=torch.bool)))
    outputs = torch.stack([x @ adapter.start for x, adapter in zip(inputs, joint.each, strict=True)], 1)
    torch.testing.assert_close(encoded.vectors, torch.nn.functional.normalize(outputs, dim=2))
    torch.testing.assert_close(encoded.extra["fused"], torch.nn.functional.normalize(outputs.mean(1), dim=1))


def test_any_subset_gives_what_its_modalities_say_and_nothing_of_the_others():
    joint, inputs = trained(encoder()), components(7)
    present = torch.tensor([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)][1:], dtype=torch.bool)
    fused = joint(Inputs(inputs, present)).extra["fused"]
    masked = [x.masked_fill(~present[:, [m]], 0) for m, x in enumerate(inputs)]
    torch.testing.assert_close(joint(Inputs(masked, present)).extra["fused"], fused)
    torch.testing.assert_close(fused.norm(dim=1), torch.ones(7))
    for row, subset in enumerate(present):
        outputs = [joint.each[m](inputs[m][row]) for m in range(3) if subset[m]]
        shared = sum(outputs) / len(outputs) @ (joint.trunk.start + joint.trunk.departure)
        normal = (shared - shared.mean()) / (shared.var(correction=0) + 1e-5).sqrt()
        wanted = shared + joint.trunk.leave(torch.nn.functional.gelu(joint.trunk.enter(normal)))
        torch.testing.assert_close(fused[row], wanted / wanted.norm())


def test_a_single_modality_passes_the_fusion_like_any_other_subset():
    joint, inputs = trained(encoder()), components(3)
    encoded = joint(Inputs(inputs, torch.eye(3).bool()))
    torch.testing.assert_close(encoded.extra["fused"], encoded.vectors[torch.arange(3), torch.arange(3)])


def test_what_is_stored_is_read_back_to_the_bit_without_what_only_training_needs():
    joint, inputs = trained(encoder(views=Views(0.3, 0.3))), Inputs(components(4), torch.ones(4, 3, dtype=torch.bool))
    config, tensors = joint.state()
    assert not any("projector" in name for name in tensors)
    again = Joint.from_state(config, {name: tensor.clone() for name, tensor in tensors.items()})
    assert torch.equal(again(inputs).vectors, joint(inputs).vectors)
    assert torch.equal(again(inputs).extra["fused"], joint(inputs).extra["fused"])


def test_in_training_a_view_leaves_out_some_modalities_and_never_all():
    joint = encoder(hidden=0, views=Views(0.0, 0.7)).train()
    present = torch.rand(400, 3, generator=generator(3)) > 0.3
    present[present.sum(1) == 0, 1] = True
    inputs = components(400)
    torch.manual_seed(0)
    fused = joint(Inputs(inputs, present)).extra["fused"]
    outputs = torch.stack([x @ adapter.start for x, adapter in zip(inputs, joint.each, strict=True)], 1)
    sizes = []
    for row in range(400):
        own = [m for m in range(3) if present[row, m]]
        subsets = [[m for i, m in enumerate(own) if mask >> i & 1] for mask in range(1, 2 ** len(own))]
        means = torch.stack([torch.nn.functional.normalize(outputs[row, s].mean(0), dim=0) for s in subsets])
        apart = (means - fused[row]).abs().amax(1)
        assert apart.min() < 1e-5
        if len(own) == 3:
            sizes.append(len(subsets[int(apart.argmin())]))
    assert {1, 2, 3} == set(sizes)
    # One of three is kept surely, two more with probability 0.3 each, unless all three draws are low.
    assert sum(sizes) / len(sizes) == pytest.approx(3 * 0.3 + 0.7**3, abs=0.15)


def classes_in_three_modalities(seed, rows=800, classes=12):
    draws = generator(seed)
    labels = torch.randint(0, classes, (rows,), generator=draws)
    latent = 1.5 * torch.randn(classes, 12, generator=draws)[labels] + 0.7 * torch.randn(rows, 12, generator=draws)
    parts = []
    for noise in (0.5, 0.8, 1.5):
        shared = 2 * torch.tanh(latent @ torch.randn(12, 30, generator=draws) / 12**0.5)
        own = torch.randn(rows, 8, generator=draws) @ torch.randn(8, 30, generator=draws) / 8**0.5
        part = shared + own + noise * torch.randn(rows, 30, generator=draws) / 2
        u = torch.linalg.qr(part - part.mean(0)).Q
        parts.append(u * rows**0.5)
    return parts, labels


def probe(train, of_train, tests, of_tests):
    """Accuracies of a ridge classifier."""
    rows = torch.cat([train, torch.ones(len(train), 1)], 1).double()
    wanted = torch.nn.functional.one_hot(of_train).double()
    ridge = 0.01 * len(rows) * torch.eye(rows.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(rows.mT @ rows + ridge, rows.mT @ wanted)
    return [
        float(
            ((torch.cat([test, torch.ones(len(test), 1)], 1).double() @ weights).argmax(1) == of_tests)
            .double()
            .mean()
        )
        for test in tests
    ]


ROWS = (slice(400), slice(400, None))


def fit(parts, *, fused_only, steps):
    """Train on the published terms, or on two views of the fused vector alone: without single modalities."""
    torch.manual_seed(0)
    starts = [torch.randn(30, 30, generator=generator(m)) / 30**0.5 for m in range(3)]
    joint = Joint(starts, "abc", hidden=64, dropout=0.0, views=Views(0.3, 0.0 if fused_only else 0.3)).train()
    if fused_only:  # the map after the fusion is drawn, as it is there: here it starts as the identity
        joint.trunk.start.copy_(torch.linalg.qr(torch.randn(30, 30, generator=generator(7))).Q)
    term = UnifiedConsistency()
    optimiser = torch.optim.AdamW(joint.parameters(), lr=5e-3)
    for _ in range(steps):
        some = torch.randint(400, (128,))
        inputs = Inputs([part[some] for part in parts], torch.ones(128, 3, dtype=torch.bool))
        encoded = joint(inputs)
        if fused_only:
            views = {"projected": encoded.extra["decoded"][:, :1], "decoded": joint(inputs).extra["decoded"][:, :1]}
            encoded, inputs = encoded._replace(extra=views), inputs._replace(present=inputs.present[:, :1])
        loss = term(encoded, inputs)
        optimiser.zero_grad()
        loss.value.backward()
        optimiser.step()
    return joint


def accuracies(joint, parts, labels, *, past_the_fusion=False):
    """Of a classifier of whole training instances' fused vectors: on fused ones, and on single modalities."""
    present = torch.ones(400, 3, dtype=torch.bool)
    joint.eval()
    with torch.no_grad():
        of_train, of_test = (joint(Inputs([part[rows] for part in parts], present)) for rows in ROWS)
        if past_the_fusion:
            joint.trunk.start.copy_(torch.eye(30))
            joint.trunk.departure.zero_()
            of_test = of_test._replace(vectors=joint(Inputs([part[ROWS[1]] for part in parts], present)).vectors)
    tests = [of_test.extra["fused"], *of_test.vectors.unbind(1)]
    fused, *single = probe(of_train.extra["fused"], labels[ROWS[0]], tests, labels[ROWS[1]])
    return fused, sum(single) / 3


def test_a_classifier_of_fused_vectors_serves_for_single_modalities():
    parts, labels = classes_in_three_modalities(0)
    joint = fit(parts, fused_only=False, steps=120)
    with torch.no_grad():
        views = joint(Inputs([part[ROWS[0]] for part in parts], torch.ones(400, 3, dtype=torch.bool)))
    fused, single = accuracies(joint, parts, labels)
    whole = torch.cat(parts, 1)
    raw = probe(whole[ROWS[0]], labels[ROWS[0]], [whole[ROWS[1]]], labels[ROWS[1]])[0]
    assert single >= 0.6
    assert fused >= raw - 0.01
    # Nothing collapses: every projected dimension spreads.
    deviations = torch.cat([views.extra["projected"], views.extra["decoded"]], 1).std(0)
    assert deviations.min() > 0.5


def test_without_single_modalities_in_training_and_past_the_fusion_it_does_not():
    """The baseline of the paper: fused vectors alone train, and single modalities skip the map after the fusion."""
    parts, labels = classes_in_three_modalities(0)
    fused, single = accuracies(fit(parts, fused_only=True, steps=40), parts, labels, past_the_fusion=True)
    assert fused > 0.9
    assert single <= 0.2
