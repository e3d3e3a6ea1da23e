"""Projected updates: what they keep, by algebra and by training one pair of modalities after another."""

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from pmrl_cli.encoders.subspaces import blocks_of, complement, leading_basis, project_update


def generator(seed):
    return torch.Generator().manual_seed(seed)


def orthonormal(rows, columns, seed):
    return torch.linalg.qr(torch.randn(rows, columns, generator=generator(seed), dtype=torch.float64)).Q


def second_moment(rows):
    return rows.mT @ rows / len(rows)


def test_the_basis_is_the_shortest_that_leaves_at_most_the_fraction_out():
    axes, energy = orthonormal(6, 6, 0), torch.tensor([5.0, 3.0, 1.0, 0.6, 0.4, 0.0], dtype=torch.float64)
    moment = axes @ torch.diag(energy) @ axes.mT
    for lost, rank in ((0.0, 5), (0.039, 5), (0.041, 4), (0.1001, 3), (0.2001, 2), (0.5001, 1), (0.9, 1)):
        basis = leading_basis(moment, lost)
        assert basis.shape == (6, rank)
        torch.testing.assert_close(basis @ basis.mT, axes[:, :rank] @ axes[:, :rank].mT)


def test_nothing_seen_protects_nothing():
    assert leading_basis(torch.zeros(4, 4), 0.01).shape == (4, 0)
    update = torch.randn(4, 3, generator=generator(0))
    torch.testing.assert_close(project_update(update, torch.zeros(4, 0)), update)


def test_rounding_is_no_direction_that_was_seen():
    rows = torch.randn(500, 3, generator=generator(1)) @ torch.randn(3, 40, generator=generator(2))
    assert leading_basis(second_moment(rows), 0.0).shape == (40, 3)


def test_unit_vectors_of_many_directions_have_a_basis_at_any_scale():
    # An absolute threshold of 0.1, as published, finds none: the eigenvalues of unit vectors sum to 1.
    rows = normalize(torch.randn(4000, 96, generator=generator(3), dtype=torch.float64), dim=1)
    assert torch.linalg.eigvalsh(second_moment(rows)).max() < 0.1
    ranks = {leading_basis(scale * second_moment(rows), 0.01).shape[1] for scale in (1e-6, 1.0, 1e6)}
    assert len(ranks) == 1
    assert ranks.pop() > 85


def test_the_complement_is_orthonormal_to_the_basis_and_split_into_disjoint_blocks():
    basis = orthonormal(9, 4, 4)
    free = complement(basis)
    assert free.shape == (9, 5)
    torch.testing.assert_close(torch.cat([basis, free], 1).mT @ torch.cat([basis, free], 1), torch.eye(9).double())
    blocks = blocks_of(free, 2)
    assert [block.shape[1] for block in blocks] == [3, 2]
    torch.testing.assert_close(blocks[0].mT @ blocks[1], torch.zeros(3, 2).double())


def test_the_three_projections_against_their_formulas():
    update, q = torch.randn(7, 5, generator=generator(5)).double(), orthonormal(7, 3, 6)
    r, n = orthonormal(5, 2, 7), orthonormal(5, 2, 8)
    p, p_out, eye = q @ q.mT, r @ r.mT, torch.eye(5).double()
    torch.testing.assert_close(project_update(update, q), update - p @ update)
    torch.testing.assert_close(project_update(update, q, outputs=r), update - p @ update @ p_out)
    torch.testing.assert_close(project_update(update, q, free=n), update - p @ update @ (eye - n @ n.mT))


def test_the_dual_projection_agrees_with_the_public_code():
    # g - P' g P with get_projector of the authors' cmcl/base.py, in float64; their thresholds of 0.3 and 0.001 kept
    # two vectors on either side. Their weights multiply from the left.
    inputs = (torch.arange(24, dtype=torch.float64).reshape(6, 4) * 0.7).sin()
    outputs = (torch.arange(18, dtype=torch.float64).reshape(6, 3) * 1.3 + 0.5).cos()[:2]
    gradient = (torch.arange(12, dtype=torch.float64).reshape(3, 4) * 0.9).cos()
    bases = [leading_basis(second_moment(of), 0.0) for of in (inputs, outputs)]
    assert [basis.shape[1] for basis in bases] == [2, 2]
    published = [
        [0.8211805459545135, 0.2630376296900076, -0.5968851441270882, -1.1109981876986066],
        [-0.5027681231723506, -0.12227430959029205, 0.37611252260339867, 0.5157908204693733],
        [0.997954652398218, 0.16238697452573317, -0.6797870956978312, -0.9412402544075531],
    ]
    found = project_update(gradient.mT, bases[0], outputs=bases[1]).mT
    torch.testing.assert_close(found, torch.tensor(published, dtype=torch.float64))


def test_a_thousand_projected_updates_leave_outputs_of_earlier_inputs():
    earlier = torch.randn(300, 8, generator=generator(9)) @ torch.randn(8, 40, generator=generator(10))
    basis = leading_basis(second_moment(earlier), 0.0)
    weights = torch.randn(40, 16, generator=generator(11)) / 40**0.5
    start, draws = weights.clone(), generator(12)
    for _ in range(1000):
        before = weights
        after = before + 0.05 * torch.randn(40, 16, generator=draws)
        weights = before + project_update(after - before, basis)
    assert (earlier @ weights - earlier @ start).abs().max() < 1e-4
    assert (weights - start).norm() > 10


@pytest.mark.parametrize(("mode", "order"), [("dual", 2), ("disjoint", None), ("input", None)])
def test_earlier_scores_change_by_second_order_at_most(mode, order):
    inputs = [torch.randn(200, 6, generator=generator(s)).double() @ orthonormal(30, 6, s + 20).mT for s in (0, 1)]
    weights = [torch.randn(30, 20, generator=generator(s + 30)).double() for s in (0, 1)]
    outputs = [x @ w for x, w in zip(inputs, weights, strict=True)]
    q = [leading_basis(second_moment(x), 0.0) for x in inputs]
    span = [leading_basis(second_moment(y), 0.0) for y in outputs]
    free = blocks_of(complement(leading_basis(second_moment(outputs[0]) + second_moment(outputs[1]), 0.0)), 2)
    updates = [torch.randn(30, 20, generator=generator(s + 40)).double() for s in (0, 1)]

    def drift(step):
        moved = []
        for m, (x, w) in enumerate(zip(inputs, weights, strict=True)):
            how = {"outputs": span[1 - m]} if mode == "dual" else {"free": free[m]} if mode == "disjoint" else {}
            moved.append(x @ (w + project_update(step * updates[m], q[m], **how)))
        return float((moved[0] @ moved[1].mT - outputs[0] @ outputs[1].mT).abs().max())

    if order is None:
        assert drift(1.0) < 1e-9
    else:
        drifts = [drift(step) for step in (1e-2, 5e-3, 2.5e-3)]
        assert drifts[0] / drifts[1] >= 3.5
        assert drifts[1] / drifts[2] >= 3.5


def tasks_one_after_another(mode, lost, seed=0):
    """R@1 of the first pair before and after training on a second, and of the second.

    Rank-20 inputs in 96 dimensions; the second pair's span shares 12 of them with the first's.
    """
    draws = generator(seed)

    def task(spans):
        z = torch.randn(600, 20, generator=draws)
        return [z @ torch.randn(20, 20, generator=draws) @ span.mT / 20**0.5 for span in spans]

    whole = [torch.linalg.qr(torch.randn(96, 96, generator=draws)).Q for _ in range(2)]
    pairs = [task([axes[:, first : first + 20] for axes in whole]) for first in (0, 8)]
    weights = [torch.randn(96, 64, generator=draws) / 96**0.5 for _ in range(2)]

    def train(pair, change):
        for w in weights:
            w.requires_grad_()
        optimiser = torch.optim.AdamW(weights, lr=3e-3, weight_decay=0.1)
        for _ in range(25):
            for some in torch.randperm(300, generator=draws).split(100):
                x, y = (normalize(of[some] @ w, dim=1) for of, w in zip(pair, weights, strict=True))
                logits, own = x @ y.mT / 0.07, torch.arange(len(some))
                loss = (cross_entropy(logits, own) + cross_entropy(logits.mT, own)) / 2
                optimiser.zero_grad()
                loss.backward()
                before = [w.detach().clone() for w in weights]
                optimiser.step()
                with torch.no_grad():
                    for m, (w, old) in enumerate(zip(weights, before, strict=True)):
                        w.copy_(old + change(m, w - old))
        for w in weights:
            w.requires_grad_(requires_grad=False)

    def recall(pair):
        x, y = (normalize(of[300:] @ w, dim=1) for of, w in zip(pair, weights, strict=True))
        return float(((x @ y.mT).argmax(1) == torch.arange(300)).float().mean())

    train(pairs[0], lambda _, update: update)
    first = recall(pairs[0])
    seen = [leading_basis(second_moment(of[:300]), lost) for of in pairs[0]]
    outputs = [second_moment(normalize(of[:300] @ w, dim=1)) for of, w in zip(pairs[0], weights, strict=True)]
    span = leading_basis(outputs[0] + outputs[1], lost)
    free = blocks_of(complement(span), 2)
    how = {
        "none": lambda _, update: update,
        "input": lambda m, update: project_update(update, seen[m]),
        "dual": lambda m, update: project_update(update, seen[m], outputs=span),
        "disjoint": lambda m, update: project_update(update, seen[m], free=free[m]),
    }
    train(pairs[1], how[mode])
    return first - recall(pairs[0]), recall(pairs[1])


def test_without_projection_the_first_pair_is_forgotten():
    forgotten, second = tasks_one_after_another("none", 0.01)
    assert forgotten >= 0.5
    assert second >= 0.9


def test_input_projection_forgets_nothing_and_learns_the_second_pair():
    forgotten, second = tasks_one_after_another("input", 0.01)
    assert forgotten <= 0.05
    assert second >= 0.4


def test_disjoint_projection_forgets_little_and_learns_more():
    forgotten, second = tasks_one_after_another("disjoint", 0.001)
    assert forgotten <= 0.2
    assert second >= 0.65


def test_dual_projection_as_published_protects_less_at_ordinary_steps():
    # The output span is truncated, and the product of the two updates is of second order, but not small.
    assert tasks_one_after_another("dual", 0.01)[0] >= 0.1
