"""Paired comparisons: their p-values against enumeration, and what they refuse."""

import copy
import itertools
import json

import numpy as np
import pytest
from scipy.stats import binomtest

from pmrl_cli.data.ids import hash_ids
from pmrl_cli.diagnosis.compare import compare, pack_outcomes, read_outcomes, sign_flip
from pmrl_cli.errors import DataError, StateError
from pmrl_cli.retrieval.batches import read_batch
from pmrl_cli.retrieval.metrics import expected_rank, hits, hits_in_gallery, reciprocal_ranks
from pmrl_cli.retrieval.ranks import Ranks, rank_batch
from tests.simulate import dataset_of, simulate


def diagnosis_of(data, groups=None, adjusted=None):
    """As much of a diagnosis as a comparison reads."""
    rows = np.arange(len(data))
    packed = pack_outcomes(
        hash_ids(data.ids, 0),
        rows=rows,
        groups=groups,
        adjusted=np.full(len(data), np.nan) if adjusted is None else adjusted,
        ranks=rank_batch(read_batch(data, rows), data.names),
    )
    return json.loads(json.dumps({"inputs": {"modalities": list(data.names)}, "outcomes": packed}))


@pytest.fixture(scope="module")
def pair():
    """The same 300 instances seen with more noise and with less, some modalities missing."""
    return tuple(diagnosis_of(simulate(300, 3, 16, noise=noise, missing=0.2)) for noise in (1.5, 0.9))


def test_outcomes_come_back_in_an_order_that_the_ids_decide():
    data = simulate(60, 3, 8, noise=1.0, missing=0.3)
    adjusted, groups = np.random.default_rng(0).random(60), np.arange(60) // 3
    ranks = rank_batch(read_batch(data, np.arange(60)), data.names)
    hashes = hash_ids(data.ids, 0)
    packed = pack_outcomes(hashes, rows=np.arange(60), groups=groups, adjusted=adjusted, ranks=ranks)
    found = read_outcomes(json.loads(json.dumps(packed)))
    order = np.argsort(hashes)
    np.testing.assert_array_equal(found.adjusted, adjusted[order].astype(np.float32))
    assert all(len(set(found.groups[groups[order] == g])) == 1 for g in range(20))
    for name, one in ranks.items():
        np.testing.assert_array_equal(np.sort(order[found.ranks[name].rows]), one.rows)
        by_row = dict(zip(one.rows, zip(one.greater, one.tied, strict=True), strict=True))
        back = found.ranks[name]
        for place, greater, tied in zip(back.rows, back.greater, back.tied, strict=True):
            assert by_row[order[place]] == (greater, tied)
    moved = np.random.default_rng(1).permutation(60)
    place = np.argsort(moved)
    other = {
        name: Ranks(*(column[np.argsort(place[one.rows])] for column in (place[one.rows], *one[1:3])), one.gallery)
        for name, one in ranks.items()
    }
    assert packed == pack_outcomes(
        hashes[moved], rows=np.arange(60), groups=groups[moved], adjusted=adjusted[moved], ranks=other
    )


def test_the_outcomes_of_a_whole_reservoir_stay_small():
    data = simulate(4096, 3, 16, noise=1.0)
    assert len(json.dumps(diagnosis_of(data, adjusted=np.random.default_rng(0).random(4096)))) < 150_000


def test_mcnemar_is_the_exact_binomial_test():
    generator = np.random.default_rng(0)
    for wins, losses in [(0, 1), (3, 3), (9, 1), (40, 21), (700, 620)]:
        units = np.concatenate([np.full(wins, 0.25), np.full(losses, -0.25), np.zeros(50)])
        p, test = sign_flip(generator.permutation(units), seed=0)
        assert test == "mcnemar"
        assert p == pytest.approx(min(1, binomtest(wins, wins + losses).pvalue), rel=1e-9)


def test_flips_agree_with_all_of_them():
    units = np.random.default_rng(3).normal(0.4, 1, size=11)
    sums = [abs(np.dot(signs, units)) for signs in itertools.product((-1, 1), repeat=11)]
    exact = np.mean(np.array(sums) >= abs(units.sum()) - 1e-12)
    p, test = sign_flip(units, seed=0)
    assert test == "sign_flip"
    assert p == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 9999))


def test_under_the_null_one_in_twenty_is_below_five_per_cent():
    generator = np.random.default_rng(0)
    small = [sign_flip(generator.standard_t(3, size=40), seed=seed)[0] < 0.05 for seed in range(300)]
    assert 0.02 <= np.mean(small) <= 0.085  # 4 standard errors of 300 draws


def test_a_diagnosis_does_not_differ_from_itself(pair):
    found = compare(pair[0], pair[0], name="itself")
    assert {"R@1", "MRR", "AUC", "R@1_standard", "fused.MRR", "m0->m1"} <= set(found["delta"])
    for one in found["delta"].values():
        assert (one["value"], one["p"], one["ci"], one["test"]) == (0, 1, [0, 0], "mcnemar")
        assert one["before"] == one["after"]


def test_the_difference_is_that_of_the_means_over_directions(pair):
    found = compare(pair[1], pair[0], name="more noise")
    before, after = (read_outcomes(one["outcomes"]).ranks for one in pair)
    pairwise = [name for name in before if not name.startswith("others")]
    metrics = {
        "R@1": lambda r: hits(r, 1),
        "R@1_standard": lambda r: hits_in_gallery(r, 1, found["standard_gallery"]),
        "MRR": reciprocal_ranks,
        "AUC": lambda r: 1 - (expected_rank(r) - 1) / (r.gallery - 1),
    }
    for metric, of in metrics.items():
        delta = found["delta"][metric]
        expected = [np.mean([of(ranks[name]).mean() for name in pairwise]) for ranks in (before, after)]
        assert [delta["before"], delta["after"]] == pytest.approx(expected)
        assert delta["value"] == pytest.approx(expected[1] - expected[0])
        assert delta["ci"][0] > 0
        assert delta["p"] < 0.001
    assert found["delta"]["m0->m1"]["test"] == "mcnemar"
    reverse = compare(pair[0], pair[1], name="less noise")
    assert reverse["delta"]["MRR"]["value"] == pytest.approx(-found["delta"]["MRR"]["value"])


def test_groups_are_what_is_independent():
    first, second = (simulate(60, 2, 16, noise=noise) for noise in (1.2, 1.0))

    def copies(data):
        arrays = {f.name: np.repeat(f.array, 4, axis=0) for f in data.modalities}
        return dataset_of(arrays)

    groups = np.repeat(np.arange(60), 4)
    once = compare(diagnosis_of(second), diagnosis_of(first), name="x")["delta"]["MRR"]
    grouped = compare(diagnosis_of(copies(second), groups), diagnosis_of(copies(first), groups), name="x")
    apart = compare(diagnosis_of(copies(second)), diagnosis_of(copies(first)), name="x")
    width = {key: np.diff(d["delta"]["AUC"]["ci"])[0] for key, d in {"grouped": grouped, "apart": apart}.items()}
    assert width["grouped"] > 1.5 * width["apart"]
    assert grouped["delta"]["AUC"]["p"] == pytest.approx(once["p"], abs=0.2)


def test_adjusted_alignment_is_compared_where_both_know_it():
    data = simulate(100, 2, 8)
    before = np.linspace(0, 1, 100)
    after = before + 0.1
    after[:10] = np.nan
    found = compare(diagnosis_of(data, adjusted=after), diagnosis_of(data, adjusted=before), name="x")["delta"]["A"]
    assert found["value"] == pytest.approx(0.1, abs=1e-6)
    assert found["n"] == 90


def test_other_instances_are_refused(pair):
    other = diagnosis_of(simulate(301, 3, 16))
    with pytest.raises(StateError, match=r"300 in old\.json, 301 here, not the same ids"):
        compare(other, pair[0], name="old.json")


def test_a_diagnosis_without_outcomes_is_refused(pair):
    with pytest.raises(DataError, match=r"no outcomes of queries in old\.json"):
        compare(pair[0], {**pair[0], "outcomes": {}}, name="old.json")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda o: o.update(instances=10**12),
        lambda o: o.update(adjusted="not base64"),
        lambda o: o.update(groups=o["adjusted"]),
        lambda o: o["directions"]["m0->m1"].update(gallery=2),
        lambda o: o["directions"]["m0->m1"].pop("tied"),
        lambda o: o.update(directions=[]),
    ],
)
def test_outcomes_that_cannot_be_are_refused(pair, spoil):
    spoilt = copy.deepcopy(pair[0])
    spoil(spoilt["outcomes"])
    with pytest.raises(DataError, match="outcomes of a diagnosis cannot be read"):
        compare(pair[0], spoilt, name="x")
