"""The shared codebook: its losses by loops and as the authors' code gives them, its averages, its restarts."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from pmrl_cli.batch import Inputs
from pmrl_cli.encoders.codebook import Codebook
from pmrl_cli.terms.codebook import code_agreement, commitment
from pmrl_cli.terms.contrast import matches

MATCH = [0, 1, 0, 2, 2, 3]
CODES = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [-1, 0, 0.5]], dtype=torch.float64)
VECTORS = torch.tensor(
    [
        [[0.9, 0.1, 0.0], [0.7, 0.3, 0.1], [0.8, -0.1, 0.2]],
        [[0.0, 0.8, 0.3], [0.1, 0.9, 0.0], [0.4, 0.5, 0.3]],
        [[0.2, 0.1, 0.7], [0.6, 0.2, 0.3], [0.1, 0.3, 0.9]],
        [[-0.6, 0.3, 0.4], [-0.9, 0.0, 0.2], [-0.5, 0.2, 0.6]],
    ],
    dtype=torch.float64,
)
EVERYWHERE = torch.ones(4, 3, dtype=torch.bool)


def codebook_of(codes, **settings):
    codebook = Codebook(len(codes), codes.shape[1], **settings).to(codes.dtype)
    codebook.codes.copy_(codes)
    codebook.sums.copy_(codes)
    codebook.idle.zero_()
    return codebook


def test_losses_are_what_the_authors_code_gives():
    # From Cross_VQEmbeddingEMA_AVT.forward of github.com/haihuangcode/CMG (ACL25-FCID&TOC), run in float64 on these
    # vectors and codes. Its losses are means over columns, ours sums (3); its CMCM is half the sum of 3 pairs.
    codebook = codebook_of(CODES)
    nearest = codebook.nearest(VECTORS)
    assert int((nearest == nearest[:, :1]).all(1).sum()) == 3
    found = float(commitment(VECTORS, CODES[nearest], EVERYWHERE))
    assert found == pytest.approx(3 * (0.0447916667 + 0.05 + 0.0791666667) / 3, rel=1e-8)
    assert float(code_agreement(VECTORS, EVERYWHERE, codebook)) == pytest.approx(1.6281568 / 1.5, rel=1e-5)


def commitment_by_loops(vectors, codes, present):
    total, count = vectors.new_zeros(()), 0
    for i in range(len(vectors)):
        for m in range(vectors.shape[1]):
            if not present[i, m]:
                continue
            others = [n for n in range(vectors.shape[1]) if n != m and present[i, n]]
            pull = 2 * ((vectors[i, m] - codes[i, m]) ** 2).sum()
            if others:
                pull = pull + sum(((vectors[i, m] - codes[i, n]) ** 2).sum() for n in others) / len(others)
            total, count = total + pull / 4, count + 1
    return total / count


def agreement_by_loops(vectors, present, codes, temperature, match=range(6)):
    def chances(vector):
        weights = [torch.exp(-((vector - code) ** 2).sum().sqrt() / temperature) for code in codes]
        return [weight / sum(weights) for weight in weights]

    losses = []
    for a in range(vectors.shape[1]):
        for b in range(a + 1, vectors.shape[1]):
            rows = [i for i in range(len(vectors)) if present[i, a] and present[i, b]]
            p = {(i, m): chances(vectors[i, m]) for i in rows for m in (a, b)}

            def score(i, j, a=a, b=b, p=p):
                return sum(
                    x * y.log() + z * w.log() for x, y, z, w in zip(p[i, a], p[j, b], p[i, b], p[j, a], strict=True)
                )

            for i in rows:
                candidates = [j for j in rows if j == i or match[j] != match[i]]
                losses.append(-(score(i, i).exp() / sum(score(i, j).exp() for j in candidates)).log())
    return sum(losses) / len(losses)


@pytest.mark.parametrize("modalities", [2, 3, 4])
def test_values_and_gradients_are_those_of_the_loops(modalities):
    generator = torch.Generator().manual_seed(modalities)
    vectors = normalize(
        torch.randn(6, modalities, 3, generator=generator, dtype=torch.float64), dim=2
    ).requires_grad_()
    present = torch.rand(6, modalities, generator=generator) < 0.7
    present[:2] = True
    codebook = codebook_of(CODES)
    codes = CODES[codebook.nearest(vectors)]
    for value, expected in (
        (commitment(vectors, codes, present), commitment_by_loops(vectors, codes, present)),
        (code_agreement(vectors, present, codebook, 0.3), agreement_by_loops(vectors, present, CODES, 0.3)),
        # Instances that show the same thing are no candidates of each other.
        (
            code_agreement(vectors, present, codebook, 0.3, matches(Inputs((), present, match=torch.tensor(MATCH)))),
            agreement_by_loops(vectors, present, CODES, 0.3, MATCH),
        ),
    ):
        assert float(value.detach()) == pytest.approx(float(expected.detach()), rel=1e-9)
        (found,), (reference,) = (torch.autograd.grad(v, vectors) for v in (value, expected))
        assert (found - reference).abs().max() < 1e-9
        assert float(found[~present].abs().sum()) == 0


def test_a_gradient_passes_through_quantised_vectors():
    codebook = codebook_of(CODES)
    vectors = VECTORS.clone().requires_grad_()
    nearest = codebook.nearest(vectors)
    quantised = codebook.quantised(vectors, nearest)
    assert torch.equal(quantised.detach(), CODES[nearest])
    (gradient,) = torch.autograd.grad((quantised * VECTORS).sum(), vectors)
    assert torch.equal(gradient, VECTORS)


def test_each_average_decays_once_a_step_whatever_the_modalities():
    # The authors decay three times a step, once for each modality.
    codebook = codebook_of(CODES, decay=0.9)
    nearest = codebook.nearest(VECTORS)
    codebook.learn(VECTORS, nearest, EVERYWHERE)
    uses = torch.bincount(nearest.flatten(), minlength=4)
    assert codebook.uses.tolist() == pytest.approx((0.9 + 0.1 * uses).tolist())
    expected = 0.9 * CODES
    for i in range(4):
        for m in range(3):
            others = sum(VECTORS[i, n] for n in range(3) if n != m) / 2
            expected[nearest[i, m]] += 0.1 * (0.5 * VECTORS[i, m] + 0.5 * others)
    assert (codebook.sums - expected).abs().max() < 1e-12
    assert (codebook.codes - expected / codebook.uses[:, None]).abs().max() < 1e-4


def test_a_restarted_code_stays_where_it_restarted():
    # The authors write the code and not its averages: the next step puts it back.
    torch.manual_seed(0)
    far = torch.cat([CODES, torch.tensor([[9.0, 9, 9]], dtype=torch.float64)])
    codebook = codebook_of(far, decay=0.9, patience=3)
    for _ in range(4):
        codebook.learn(VECTORS, codebook.nearest(VECTORS), EVERYWHERE)
    place = codebook.codes[4].clone()
    assert float((VECTORS - place).norm(dim=-1).min()) < 1e-9
    assert float(codebook.idle[4]) == 0
    used_elsewhere = torch.zeros(4, 3, dtype=torch.int64)
    codebook.learn(VECTORS, used_elsewhere, EVERYWHERE)
    assert (codebook.codes[4] - place).abs().max() < 1e-4


def test_absent_vectors_teach_nothing_and_are_no_restart():
    torch.manual_seed(0)
    present = torch.zeros(4, 3, dtype=torch.bool)
    present[0] = True
    spoiled = torch.where(present[..., None], VECTORS, torch.full_like(VECTORS, 1e6))
    codebook = codebook_of(CODES, patience=0)
    codebook.learn(spoiled, codebook.nearest(spoiled), present)
    assert float(codebook.codes.abs().max()) < 2
    assert math.isfinite(float(codebook.sums.sum()))


def test_codes_of_a_fresh_book_start_at_vectors_of_the_first_batch():
    torch.manual_seed(0)
    vectors = normalize(torch.randn(64, 2, 16) + 3, dim=2)
    codebook = Codebook(32, 16)
    present = torch.ones(64, 2, dtype=torch.bool)
    codebook.learn(vectors, codebook.nearest(vectors), present)
    codebook.learn(vectors, codebook.nearest(vectors), present)
    assert len(codebook.nearest(vectors).unique()) >= 16
