"""Consensus, suspects and mispair rates: brute force, invariances, planted swaps."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from pmrl_cli.diagnosis.mispair_model import mispair_model
from pmrl_cli.diagnosis.mispair_partners import Held
from pmrl_cli.diagnosis.mispair_rates import Mixture, consensus_auc, weights_of
from pmrl_cli.diagnosis.statistics.linear import fit_linear, sides_of
from pmrl_cli.files.join.dataset import read_dataset
from pmrl_cli.retrieval.batches import Batch, read_batch
from pmrl_cli.stats.consensus import EDGES, agreement, reference_of
from pmrl_cli.stats.instances import instance_statistics
from tests.simulate import dataset_of, simulate


def batch_of(data):
    return read_batch(data, slice(0, len(data)))


def swapped(batch, rate, seed=0):
    """Return a batch in which a share of the instances got one modality of another of them, and which."""
    generator = np.random.default_rng(seed)
    count, modalities = batch.present.shape
    bad = generator.permutation(count)[: round(rate * count)]
    which = np.full(count, -1)
    which[bad] = np.arange(len(bad)) % modalities
    embeddings = batch.embeddings.clone()
    for m in range(modalities):
        rows = np.flatnonzero(which == m)
        embeddings[rows, m] = batch.embeddings[np.roll(rows, 1), m]
    return Batch(batch.rows, embeddings, batch.present), which


def model_of(batch):
    reference = reference_of(batch)
    found, mispaired = agreement(reference, batch), reference.mispaired()
    return found, mispaired[0], mispair_model(found, mispaired, np.arange(len(batch.rows)))


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_scores_are_those_of_loops_over_the_definition():
    batch = batch_of(simulate(40, 3, 6, missing=0.2, offset=1.0))
    z, present = batch.embeddings.double().numpy(), batch.present.numpy()
    means = [z[present[:, m], m].mean(0) for m in range(3)]
    z = np.where(present[..., None], unit(z - means), 0)
    usable = present & (present.sum(1, keepdims=True) > 1)
    consensus = np.stack([unit(z.sum(1) - z[:, m]) for m in range(3)], axis=1)
    reference = reference_of(batch)
    found = agreement(reference, batch)

    def off(cosines):  # mean of the second to eleventh nearest
        return np.sort(cosines)[::-1][1:11].mean()

    expected = np.full((40, 3), np.nan)
    mispaired = np.zeros((3, len(EDGES) - 1))
    for m in range(3):
        rows = np.flatnonzero(usable[:, m])
        table = {i: off(z[rows, m] @ consensus[i, m]) for i in rows}
        other = {i: off(consensus[rows, m] @ z[i, m]) for i in rows}
        for i in rows:
            scores = [z[i, m] @ consensus[j, m] - (other[i] + table[j]) / 2 for j in rows]
            expected[i, m] = scores[list(rows).index(i)]
            mispaired[m] += np.histogram(np.delete(scores, list(rows).index(i)), EDGES)[0]
    np.testing.assert_allclose(found.score, expected, atol=1e-6)
    counted = reference.mispaired()[0]
    np.testing.assert_array_equal(counted.sum(1), mispaired.sum(1))
    assert np.abs(np.cumsum(counted - mispaired, axis=1)).max() <= 2  # rounding at the edges of bins


def test_an_instance_is_scored_alike_in_the_reference_and_beside_it():
    batch = batch_of(simulate(300, 3, 16))
    reference = reference_of(batch)
    whole = agreement(reference, batch).score
    pieces = [agreement(reference, piece).score for piece in batch.split(77)]
    np.testing.assert_allclose(np.concatenate(pieces), whole, atol=1e-6)
    np.testing.assert_allclose(reference.agreement().score, whole, atol=1e-6)


def test_rotation_order_of_modalities_and_order_of_instances_change_no_score():
    batch = batch_of(simulate(200, 3, 8, missing=0.2))
    found, _, model = model_of(batch)
    rotation = torch.from_numpy(np.linalg.qr(np.random.default_rng(0).normal(size=(8, 8)))[0]).float()
    order = torch.from_numpy(np.random.default_rng(1).permutation(200))
    moved = {
        "rotated": (Batch(batch.rows, batch.embeddings @ rotation, batch.present), slice(None), [0, 1, 2]),
        "reordered": (Batch(batch.rows, batch.embeddings[order], batch.present[order]), order.numpy(), [0, 1, 2]),
        "renamed": (
            Batch(batch.rows, batch.embeddings[:, [2, 0, 1]], batch.present[:, [2, 0, 1]]),
            slice(None),
            [2, 0, 1],
        ),
    }
    for how, (other, rows, columns) in moved.items():
        again, _, learned = model_of(other)
        np.testing.assert_allclose(again.score, found.score[rows][:, columns], atol=2e-6, err_msg=how)
        evidence = model.suspicion(found.score).evidence[rows]
        np.testing.assert_allclose(learned.suspicion(again.score).evidence, evidence, atol=1e-2, err_msg=how)


def test_a_missing_modality_is_as_if_it_were_not_there():
    data = simulate(100, 3, 8)
    present = np.ones((100, 3), bool)
    present[:, 1] = False
    arrays = {f.name: np.array(f.array) for f in data.modalities}
    without = agreement(*(lambda b: (reference_of(b), b))(batch_of(dataset_of({n: arrays[n] for n in ("m0", "m2")}))))
    masked = agreement(*(lambda b: (reference_of(b), b))(batch_of(dataset_of(arrays, present=present))))
    assert np.isnan(masked.score[:, 1]).all()
    np.testing.assert_allclose(masked.score[:, [0, 2]], without.score, atol=1e-6)


def test_the_auc_is_that_of_all_pairs_of_matched_and_mispaired_scores():
    batch = batch_of(simulate(60, 2, 8, noise=1.5))
    reference = reference_of(batch)
    score = agreement(reference, batch).score[:, 0]
    vectors, consensus = reference.vectors[:, 0], reference.consensus[:, 0]
    all_scores = vectors @ consensus.mT - (reference.closeness[:, 0, 0, None] + reference.closeness[:, 0, 1]) / 2
    unrelated = all_scores[~torch.eye(60, dtype=torch.bool)].numpy()
    truth = np.r_[np.ones(60), np.zeros(len(unrelated))]
    found = consensus_auc(score, reference.mispaired()[0, 0], np.arange(60))
    assert found.value == pytest.approx(roc_auc_score(truth, np.r_[score, unrelated]), abs=1e-3)
    assert found.ci[0] < found.value < found.ci[1]


def test_identical_modalities_rank_perfectly_and_collapsed_or_shuffled_ones_at_chance():
    z = np.random.default_rng(0).normal(size=(300, 16))
    found, mispaired, _ = model_of(batch_of(dataset_of({"a": z, "b": z, "c": z})))
    np.testing.assert_allclose(found.cosine, 1, atol=1e-6)
    assert consensus_auc(found.score[:, 0], mispaired[0], np.arange(300)).value > 0.999
    for arrays in (
        {"a": z, "b": np.random.default_rng(1).normal(size=(300, 16))},
        {"a": np.ones((300, 16)), "b": np.ones((300, 16))},
    ):
        found, mispaired, model = model_of(batch_of(dataset_of(arrays)))
        auc = consensus_auc(found.score[:, 0], mispaired[0], np.arange(300))
        assert auc.value == pytest.approx(0.5, abs=0.06)
        assert model.rates[0].status == "upper_bound"
        assert model.suspicion(found.score).probability.max() == 0


def null_of(mean):
    """Counts of a normal null of deviation .2 over the bins, a million in all."""
    return np.round(1e6 * np.diff(norm.cdf(EDGES, mean, 0.2))).astype(np.int64)


@pytest.mark.parametrize("near", [0.0, 0.15])
def test_the_weights_of_the_mixture_are_those_of_largest_likelihood(near):
    generator = np.random.default_rng(0)
    score = np.concatenate([generator.normal(0, 0.2, 80), generator.normal(0.3, 0.2, round(1000 * near))])
    mixture = Mixture.of(score, np.stack([null_of(0.0), null_of(0.3)]))
    weights, best = mixture.fit()

    def loss(values):
        expected = np.maximum(values @ mixture.parts, 1e-12)
        return float((expected - mixture.counts * np.log(expected)).sum())

    found = min(
        (minimize(loss, start * np.ones(4), bounds=[(0, None)] * 4, method="L-BFGS-B") for start in (10.0, 60.0)),
        key=lambda one: one.fun,
    )
    assert -best[0] == pytest.approx(found.fun, abs=0.05)
    value, low, high = weights_of(mixture, [[0]], 1.0)[1][0]
    assert value == pytest.approx(weights[0, 0], rel=1e-12)
    assert low <= 80 <= high
    for end in (low, high):  # 1.92 below the largest log-likelihood, or the end of the range
        _, reached = mixture.fit([Held([0], np.array([end]))])
        assert end == 0 or best[0] - reached[1] == pytest.approx(1.92, abs=0.5)


def test_noisy_partners_are_no_mispaired_ones_but_few_of_them_widen_the_interval():
    null, generator = np.stack([null_of(0.0)]), np.random.default_rng(0)
    low = generator.normal(0, 0.2, 4000)
    noisy = low[generator.random(4000) < norm.cdf(low, 0, 0.2)]  # rarer downwards, as the tail has it
    mixture = Mixture.of(noisy, null)
    value, least, most = weights_of(mixture, [[0]], 1.0)[1][0]
    assert least < 20
    assert value < 0.05 * len(noisy)
    planted = Mixture.of(np.concatenate([noisy, generator.normal(0, 0.2, 1000)]), null)
    value, least, most = weights_of(planted, [[0]], 1.0)[1][0]
    assert least < 1000 < most
    assert most - least > 2 * 1.96 * np.sqrt(1000)


def test_no_low_score_bounds_the_rate_by_the_counts_of_chance():
    mixture = Mixture.of(np.full(500, 1.5), np.stack([null_of(0.0)]))
    value, low, high = weights_of(mixture, [[0]], 1.0)[1][0]
    assert (value, low) == (0.0, 0.0)
    # Half of the mispaired would have been seen: the likelihood of none of m / 2 is exp(-m / 2).
    assert high == pytest.approx(2 * 1.92, rel=0.05)
    assert weights_of(mixture, [[0]], 3.0)[1][0][2] == pytest.approx(3 * high, rel=0.05)


@pytest.mark.parametrize(("modalities", "noise"), [(2, 0.5), (3, 0.8), (4, [0.5, 0.5, 1.2, 0.5])])
@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_planted_swaps_are_found_with_their_modality_and_counted(modalities, noise, rate):
    batch, which = swapped(batch_of(simulate(1000, modalities, 32, noise=noise)), rate)
    found, _, model = model_of(batch)
    judged = model.suspicion(found.score)
    auroc = roc_auc_score(which >= 0, judged.evidence)
    assert auroc >= 0.97
    assert auroc >= roc_auc_score(which >= 0, -instance_statistics(batch).rho)
    if modalities > 2:
        assert (judged.suspect_modality == which)[which >= 0].mean() > 0.95
    truth = rate if modalities == 2 else rate / modalities
    for estimated in model.rates:
        assert estimated.status == "ok"
        assert estimated.ci[0] <= truth <= estimated.ci[1]
    listed = judged.probability > 0.5
    assert (which >= 0)[listed].mean() > 0.9
    assert listed.sum() > 0.5 * rate * 1000


def test_swaps_within_a_class_are_counted_beside_what_the_other_modalities_say():
    generator = np.random.default_rng(0)
    classes = generator.integers(12, size=700)
    latent = 1.2 * generator.normal(size=(12, 32))[classes] + generator.normal(size=(700, 32))
    arrays = {name: latent + 0.6 * generator.normal(size=latent.shape) for name in "abc"}
    clean = arrays["a"].copy()
    for row in generator.permutation(700)[:70]:
        like = np.flatnonzero(classes == classes[row])
        arrays["a"][row] = clean[generator.choice(like[like != row])]
    _, _, model = model_of(batch_of(dataset_of(arrays)))
    wrong, *right = model.rates
    assert wrong.status == "ok"
    assert wrong.ci[0] <= 0.1 <= wrong.ci[1]
    assert model.near_rates[0].value > 0.07
    assert all(one.ci[0] == 0 for one in right)


@pytest.mark.parametrize("seed", range(3))
def test_well_paired_data_have_no_suspects(seed):
    found, _, model = model_of(batch_of(simulate(600, 3, 32, noise=0.5, missing=0.2, seed=seed)))
    for estimated in model.rates:
        assert estimated.value < 0.01
        assert estimated.ci[0] < 0.005
    assert (model.suspicion(found.score).probability > 0.5).mean() < 0.005


def test_an_uninformative_modality_flags_no_suspects():
    data = simulate(600, 3, 32, noise=0.5)
    arrays = {f.name: np.array(f.array) for f in data.modalities}
    arrays["m2"] = np.random.default_rng(5).normal(size=(600, 32))
    batch, which = swapped(batch_of(dataset_of(arrays)), 0.05)
    found, _, model = model_of(batch)
    visible = which != 2  # swaps of noise cannot be seen
    assert model.separation.gap[2] < 0.3
    least = -np.nanmin(found.score, axis=1)
    assert roc_auc_score((which >= 0)[visible], model.suspicion(found.score).evidence[visible]) > 0.95
    assert roc_auc_score((which >= 0)[visible], least[visible]) < 0.9  # what the least score gives


def test_groups_widen_the_interval_of_the_rate():
    batch, which = swapped(batch_of(simulate(100, 3, 32)), 0.2)
    copies = Batch(np.arange(800), batch.embeddings.repeat_interleave(8, 0), batch.present.repeat_interleave(8, 0))
    reference = reference_of(copies)
    found, mispaired = agreement(reference, copies), reference.mispaired()
    alone = mispair_model(found, mispaired, np.arange(800)).rates[0].ci
    grouped = mispair_model(found, mispaired, np.repeat(np.arange(100), 8)).rates[0].ci
    assert grouped[1] - grouped[0] > 1.8 * (alone[1] - alone[0])
    assert (which >= 0).sum() == 20


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_handful_of_instances_has_no_claims(count):
    found, mispaired, model = model_of(batch_of(simulate(count, 3, 4)))
    judged = model.suspicion(found.score)
    assert np.isfinite(judged.evidence).all()
    assert (judged.probability <= 1).all()
    if count == 1:
        assert consensus_auc(found.score[:, 0], mispaired[0], np.arange(1)).status == "n_too_small"
        assert model.rates[0].status == "n_too_small"


def test_swaps_among_real_digits_are_found():
    data = read_dataset([str(Path(__file__).parents[2] / "sample_data" / "features")], join="inner")
    vectors = [features.read(slice(0, len(data))) for features in data.modalities]
    fitted = np.arange(len(data)) % 2 == 0
    seen, third = sides_of([one[fitted] for one in vectors]), np.arange(fitted.sum()) % 3 == 0
    adapter = fit_linear(seen, data.present[fitted], third)
    unseen = adapter.embed(sides_of([one[~fitted] for one in vectors]), data.present[~fitted])
    areas = []
    for seed in range(3):
        batch, which = swapped(unseen, 0.05, seed)
        found, _, model = model_of(batch)
        bad = which >= 0
        areas.append(
            (
                roc_auc_score(bad, model.suspicion(found.score).evidence),
                roc_auc_score(bad, -instance_statistics(batch).rho),
            )
        )
    ours, leading = np.mean(areas, axis=0)
    assert ours >= 0.92  # halves of a digit hardly tell it from others of its class
    assert ours > leading + 0.02
