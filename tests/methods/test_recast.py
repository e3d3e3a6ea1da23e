"""Reversible consistency with class targets, against loops, and its behaviour without pairs."""

import math

import pytest
import torch
from torch.nn.functional import normalize, one_hot

from pmrl_cli.batch import Encoded, Inputs
from pmrl_cli.terms.recast import (
    INVERSES,
    RecastConsistency,
    generalised_cross_entropy,
    inverse_prior,
    learn_prior,
    random_prior,
    recast_consistency,
)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def softmax(row):
    powers = [math.exp(value) for value in row]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize("q", [0.0, 1e-9, 0.01, 0.3, 1.0])
def test_generalised_cross_entropy_against_its_formula(q):
    logits, targets = draw(6, 4), torch.zeros(6, 4, dtype=torch.float64)
    targets[torch.arange(6), torch.arange(6) % 4] = 0.9
    targets[torch.arange(6), (torch.arange(6) * 2 + 1) % 4] += 0.1
    for value, row, target in zip(
        generalised_cross_entropy(logits, targets, q), logits.tolist(), targets.tolist(), strict=True
    ):
        of_class = sum(p * y for p, y in zip(softmax(row), target, strict=True))
        wanted = -math.log(of_class) if q < 1e-8 else (1 - of_class**q) / q
        assert float(value) == pytest.approx(wanted, rel=1e-6)


def test_the_limits_are_cross_entropy_and_mean_absolute_error():
    logits, labels = draw(9, 5), torch.arange(9) % 5
    targets = one_hot(labels, 5).double()
    torch.testing.assert_close(
        generalised_cross_entropy(logits, targets, 0.0),
        torch.nn.functional.cross_entropy(logits, labels, reduction="none"),
    )
    apart = (logits.softmax(1) - targets).abs().sum(1) / 2
    torch.testing.assert_close(generalised_cross_entropy(logits, targets, 1.0), apart)


def test_the_first_step_has_a_finite_gradient():
    # Where the published code begins, at q = 0, it divides 0 by 0.
    logits = draw(5, 3).requires_grad_()
    generalised_cross_entropy(logits, one_hot(torch.arange(5) % 3, 3).double(), 0.0).sum().backward()
    assert logits.grad.isfinite().all()
    assert torch.autograd.gradcheck(
        lambda x: generalised_cross_entropy(x, one_hot(torch.arange(5) % 3, 3).double(), 0.4),
        draw(5, 3).requires_grad_(),
    )


def test_the_inverses_of_a_prior():
    prior = draw(12, 4)
    torch.testing.assert_close(inverse_prior(prior, "pinv") @ prior, torch.eye(4).double())
    rows = inverse_prior(prior, "transpose")
    torch.testing.assert_close(rows @ rows.mT, normalize(prior, dim=0).mT @ normalize(prior, dim=0))
    polar = inverse_prior(prior, "polar")
    torch.testing.assert_close(polar @ polar.mT, torch.eye(4).double())
    # Of all matrices with orthonormal rows the nearest to W'.
    for seed in range(20):
        other = torch.linalg.qr(draw(12, 4, seed=seed)).Q.mT
        assert (polar - prior.mT).norm() <= (other - prior.mT).norm()


def test_the_pseudo_inverse_turns_the_geometry_of_classes_over_and_the_transpose_keeps_it():
    prior = draw(12, 3)
    prior[:, 1] = prior[:, 0] + 0.3 * draw(12, seed=5)  # two classes alike
    like = [
        float(normalize(inverse_prior(prior, kind), dim=1)[0] @ normalize(inverse_prior(prior, kind), dim=1)[1])
        for kind in INVERSES
    ]
    assert like[0] < -0.5
    assert like[1] > 0.5
    assert abs(like[2]) < 1e-6


@pytest.mark.parametrize(("dim", "classes"), [(16, 5), (5, 5), (4, 7)])
def test_a_random_prior_has_unit_columns_orthogonal_where_there_is_room(dim, classes):
    prior = random_prior(dim, classes, generator(0)).double()
    assert prior.shape == (dim, classes)
    torch.testing.assert_close(prior.norm(dim=0), torch.ones(classes).double(), atol=1e-6, rtol=0)
    if classes <= dim:
        torch.testing.assert_close(prior.mT @ prior, torch.eye(classes).double(), atol=1e-6, rtol=0)


def consistency_by_loops(features, targets):
    n, dim = features.shape
    f, r = features.tolist(), targets.tolist()

    def cos(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(
            sum(x * x for x in a) * sum(y * y for y in b)
        )

    shape = 0.0
    for i in range(n):
        for j in range(n):
            shape += (2 * cos(r[i], r[j]) - 2 * cos(f[i], f[j])) ** 2 / n**2
            shape += (2 * cos(r[i], f[j]) - 2 * cos(r[j], f[i])) ** 2 / n**2
    distance = sum((f[i][d] - r[i][d]) ** 2 for i in range(n) for d in range(dim)) / n
    return shape, distance


def test_consistency_against_loops():
    features, targets = draw(7, 5), draw(7, 5, seed=1)
    found = recast_consistency(features, targets)
    assert [float(value) for value in found] == pytest.approx(consistency_by_loops(features, targets), rel=1e-10)
    assert torch.autograd.gradcheck(lambda f: recast_consistency(f, targets), features.requires_grad_())


def test_consistency_agrees_with_the_public_code():
    # What discrimination_loss(r, f, 1, 0), (r, f, 0, 1) and gce_loss of the authors' loss.py gave on these: in
    # float64, but for the classes; the mean squared difference there is over entries too.
    index = torch.arange(12, dtype=torch.float64).reshape(4, 3)
    found = recast_consistency((index * 0.7).sin(), (index * 1.3 + 0.5).cos())
    assert float(found[0]) == pytest.approx(0.8474055932392579, rel=1e-9)
    assert float(found[1]) / 3 == pytest.approx(1.0170763438705623, rel=1e-9)
    logits = torch.stack([index[:, 0].sin(), index[:, 1].cos(), index[:, 2].sin()], 1)
    classes = torch.eye(3).double()[[0, 1, 2, 1]]
    classes = 0.9 * classes + 0.1 * classes[[1, 2, 0, 3]]
    robust = generalised_cross_entropy(logits, classes, 0.37).mean()
    assert float(robust) == pytest.approx(1.0581847891917269, rel=1e-7)


def consistency(prior, **settings):
    term = RecastConsistency(**settings)
    term.use(prior)
    return term


def batch(present, labels, dim=6, seed=0):
    vectors = normalize(draw(*present.shape, dim, seed=seed), dim=2)
    return Encoded(vectors, present), Inputs([], present, labels)


def test_the_term_against_loops():
    present = torch.tensor([[1, 1], [1, 0], [0, 1], [1, 1], [1, 0], [0, 1], [1, 0]], dtype=torch.bool)
    labels = torch.tensor([0, 1, 2, -1, 2, 0, 1])
    encoded, inputs = batch(present, labels)
    prior = draw(6, 3, seed=3)
    term = consistency(prior, shape_weight=0.3, distance_weight=0.2, class_weight=1.5, keep=0.8, ramp=4)
    term.step += 2
    torch.manual_seed(0)
    found = term(encoded, inputs)
    torch.manual_seed(0)
    total = 0.0
    for m in range(2):
        rows = [i for i in range(7) if present[i, m] and labels[i] >= 0]
        other = torch.randperm(len(rows)).tolist()
        f = encoded.vectors[rows, m]
        y = one_hot(labels[rows], 3).double()
        mixed = torch.stack([0.8 * f[i] + 0.2 * f[j] for i, j in enumerate(other)])
        mixed = mixed / mixed.norm(dim=1, keepdim=True)
        classes = torch.stack([0.8 * y[i] + 0.2 * y[j] for i, j in enumerate(other)])
        shape, distance = consistency_by_loops(mixed, classes @ torch.linalg.pinv(prior))
        q = 0.5
        robust = 0.0
        for row, target in zip((mixed @ prior).tolist(), classes.tolist(), strict=True):
            of_class = sum(p * t for p, t in zip(softmax(row), target, strict=True))
            robust += (1 - of_class**q) / q / len(rows)
        total += (0.3 * shape + 0.2 * distance + 1.5 * robust) / 2
    assert float(found.value) == pytest.approx(total, rel=1e-9)
    assert float(found.parts["q"]) == 0.5


def test_the_gradient_of_the_term_against_differences():
    present = torch.ones(5, 2, dtype=torch.bool)
    _, inputs = batch(present, torch.arange(5) % 3)
    term = consistency(draw(6, 3, seed=3)).eval()

    def value(vectors):
        torch.manual_seed(0)
        return term(Encoded(vectors, present), inputs).value

    assert torch.autograd.gradcheck(value, normalize(draw(5, 2, 6), dim=2).requires_grad_())


@pytest.mark.parametrize("case", ["empty", "nothing present", "no labels"])
def test_the_term_is_a_zero_of_the_graph_when_nothing_contributes(case):
    present = torch.full((0 if case == "empty" else 4, 2), case == "no labels")
    encoded, inputs = batch(present, torch.full((len(present),), -1 if case == "no labels" else 0))
    vectors = encoded.vectors.requires_grad_()
    loss = consistency(draw(6, 3))(Encoded(vectors, present), inputs)
    loss.value.backward()
    assert loss.value == 0
    assert (vectors.grad == 0).all()


def unpaired(seed, noise, instances=250, dims=(60, 50, 40), classes=10):
    """Modalities of instances of their own: components (n, p_m), present, labels; and held-out ones by modality."""
    draws = generator(seed)
    centres = torch.randn(classes, 16, generator=draws)
    parts, tests = [], []
    for dim, sd in zip(dims, noise, strict=True):
        mixing = torch.randn(16, dim, generator=draws) / 4
        labels = torch.arange(2 * instances) % classes
        latent = centres[labels] + 0.6 * torch.randn(2 * instances, 16, generator=draws)
        rows = latent @ mixing + sd * torch.randn(2 * instances, dim, generator=draws)
        rows = (rows - rows.mean(0)) / rows.std(0)
        parts.append((rows[:instances], labels[:instances]))
        tests.append((rows[instances:], labels[instances:]))
    labels = torch.cat([of for _, of in parts])
    present = torch.block_diag(*(torch.ones(instances, 1) for _ in dims)).bool()
    components = []
    for m, (rows, _) in enumerate(parts):
        whole = torch.zeros(len(labels), rows.shape[1])
        whole[present[:, m]] = rows
        components.append(whole)
    return components, present, labels, tests


def mean_average_precision(queries, of_query, gallery, of_gallery):
    ranks = (queries @ gallery.mT).argsort(1, descending=True)
    right = (of_gallery[ranks] == of_query[:, None]).double()
    precision = right.cumsum(1) / torch.arange(1, len(gallery) + 1)
    return float(((precision * right).sum(1) / right.sum(1)).mean())


def trained_without_pairs(priors, seed):
    components, present, labels, tests = unpaired(seed, (1.0, 1.0, 1.5))
    torch.manual_seed(0)
    networks = [
        torch.nn.Sequential(torch.nn.Linear(c.shape[1], 64), torch.nn.ReLU(), torch.nn.Linear(64, 32))
        for c in components
    ]
    terms = [consistency(prior, ramp=100) for prior in priors]
    optimiser = torch.optim.Adam([p for net in networks for p in net.parameters()], lr=3e-3, betas=(0.5, 0.999))
    for _ in range(100):
        rows = torch.randint(len(labels), (384,))
        vectors = torch.stack(
            [normalize(net(c[rows]), dim=1) for net, c in zip(networks, components, strict=True)], 1
        )
        losses = []
        for m, term in enumerate(terms):
            only = torch.zeros_like(present[rows])
            only[:, m] = present[rows, m]
            losses.append(term(Encoded(vectors, only), Inputs([], only, labels[rows])).value)
        optimiser.zero_grad()
        sum(losses).backward()
        optimiser.step()
    with torch.no_grad():
        found = [normalize(net(rows), dim=1) for net, (rows, _) in zip(networks, tests, strict=True)]
    return sum(
        mean_average_precision(found[m], tests[m][1], found[n], tests[n][1]) / 6
        for m in range(3)
        for n in range(3)
        if m != n
    )


def test_one_shared_prior_aligns_unpaired_modalities_and_separate_priors_do_not():
    one = random_prior(32, 10, generator(0))
    assert trained_without_pairs([one] * 3, seed=0) >= 0.6
    assert trained_without_pairs([random_prior(32, 10, generator(m)) for m in range(3)], seed=0) <= 0.25


def test_the_prior_is_that_of_the_modality_whose_labels_are_learned_best():
    components, present, labels, _ = unpaired(1, (3.5, 1.0, 2.5), instances=300, dims=(30, 30, 30))
    torch.manual_seed(0)
    prior, quality = learn_prior(components, present, labels, random_prior(32, 10, generator(0)), steps=100)
    assert max(range(3), key=quality.__getitem__) == 1
    assert prior.shape == (32, 10)
    assert not prior.requires_grad


def test_quality_is_measured_on_instances_that_did_not_train():
    # Labels at random can be learned by heart, not predicted.
    rows = torch.randn(120, 60, generator=generator(2))
    labels = torch.randint(4, (120,), generator=generator(3))
    torch.manual_seed(0)
    _, quality = learn_prior([rows], torch.ones(120, 1, dtype=torch.bool), labels, random_prior(32, 4, generator(0)))
    assert quality[0] < 0.35
