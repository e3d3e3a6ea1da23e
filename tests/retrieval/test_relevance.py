"""Several right answers: items, matches, and their metrics under ties, against loops and against every order."""

import numpy as np
import pytest
import torch

from pmrl_cli.data import dataset as dataset_module
from pmrl_cli.errors import UsageError
from pmrl_cli.fusion import WEIGHT_TEMPERATURE
from pmrl_cli.retrieval import counting, evaluate
from pmrl_cli.retrieval import ranks as ranks_module
from pmrl_cli.retrieval.batches import Batch, read_batch
from pmrl_cli.retrieval.metrics import (
    average_precision,
    chance,
    expected_rank,
    hits,
    hits_in_gallery,
    metric,
    r_precision,
    random_order,
    reciprocal_ranks,
    wins,
)
from pmrl_cli.retrieval.ranks import Answers, Ranks, count_shard, rank_batch, rank_dataset, ranks_of
from pmrl_cli.retrieval.relevance import Relevance
from tests.reference import fusion as fused_reference
from tests.reference import relevance as reference
from tests.simulate import dataset_of, simulate


@pytest.fixture(params=[(7, 5), (512, 512)], ids=str)
def uneven_blocks(request, monkeypatch):
    monkeypatch.setattr(counting, "_QUERIES", request.param[0])
    monkeypatch.setattr(counting, "_CANDIDATES", request.param[1])
    monkeypatch.setattr(counting, "_PAIRS", 17)
    monkeypatch.setattr(ranks_module, "_HELD_BYTES", 4 * 3 * 8 * 61)
    monkeypatch.setattr(dataset_module, "BLOCK_BYTES", 4 * 3 * 8 * 37)


def repeated(rows=80, modalities=3, seed=0, *, near=False):
    """Instances of which vectors repeat, each modality in its own way; some copies are items of their own."""
    generator = np.random.default_rng(seed)
    data = simulate(rows, modalities, 8, noise=1.0, seed=seed)
    items = np.stack([generator.integers(rows // (m + 1), size=rows) for m in range(modalities)], 1)
    arrays = {f.name: f.array[items[:, m]] * (1 + generator.random()) for m, f in enumerate(data.modalities)}
    if near:  # equal vectors that are different items: ties
        items = np.where(generator.random(items.shape) < 0.3, rows + np.arange(rows)[:, None], items)
    match = np.where(generator.random(rows) < 0.5, generator.integers(rows // 6, size=rows), rows + np.arange(rows))
    present = generator.random((rows, modalities)) > 0.25
    return dataset_of(arrays, present=present), Relevance(items, match)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def check(ranks, scores_of, right, candidates):
    assert ranks.rows.tolist() == list(right)
    assert ranks.gallery == len(candidates)
    for i, (query, answers) in enumerate(right.items()):
        expected = reference.judged({y: scores_of(query, y) for y in candidates}, answers)
        assert (ranks.greater[i], ranks.tied[i], ranks.answers.best[i]) == expected[:3]
        assert ranks.answers.right[i] == len(answers)
        assert ranks.answers.precision[i] == pytest.approx(expected[3], rel=1e-9)
        assert ranks.answers.r_precision[i] == pytest.approx(expected[4], abs=1e-12)


@pytest.mark.usefixtures("uneven_blocks")
@pytest.mark.parametrize("near", [False, True], ids=["no ties", "ties"])
def test_blockwise_counts_of_many_right_answers_are_those_of_loops(near):
    data, relevance = repeated(near=near)
    found = rank_dataset(data, np.arange(len(data)), relevance=relevance)
    vectors = [unit(np.float64(f.array) + 1e-30) for f in data.modalities]
    for a in range(3):
        for b in range(3):
            if a != b:
                eligible = data.present[:, a] & data.present[:, b]
                right, candidates = reference.right_of(
                    relevance.items[:, a], relevance.items[:, b], relevance.match, eligible
                )
                ranks = found[f"m{a}->m{b}"]
                check(ranks, lambda x, y, a=a, b=b: vectors[a][x] @ vectors[b][y], right, candidates)
                assert not near or ranks.tied.any()
    batch = rank_batch(read_batch(data, slice(0, len(data))), data.names, relevance=relevance)
    for name, ranks in found.items():
        for ours, theirs in zip(ranks.answers, batch[name].answers, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-12)


@pytest.mark.usefixtures("uneven_blocks")
@pytest.mark.parametrize("fusion", ["leading", "weighted"])
def test_fused_queries_are_one_where_all_they_fuse_is_equal(fusion):
    generator = np.random.default_rng(3)
    relevance = Relevance(generator.integers(9, size=(80, 3)), np.arange(80) // 2)
    drawn = generator.normal(size=(3, 9, 8))
    data = dataset_of({f"m{m}": drawn[m][relevance.items[:, m]] for m in range(3)})
    found = rank_dataset(data, np.arange(len(data)), relevance=relevance, fusion=fusion)
    vectors = unit(np.stack([f.array for f in data.modalities], 1).astype(np.float64))
    for m in range(3):
        others = [n for n in range(3) if n != m]
        together = np.unique(relevance.items[:, others], axis=0, return_inverse=True)[1].reshape(-1)
        right, candidates = reference.right_of(
            together, relevance.items[:, m], relevance.match, np.ones(len(data), bool)
        )
        if fusion == "leading":
            scores = unit(vectors[:, others].sum(1)) @ vectors[:, m].T
        else:
            everyone = np.ones((len(data), 2), bool)
            scores = fused_reference.scores(vectors[:, others], everyone, vectors[:, m], WEIGHT_TEMPERATURE)
        check(found[f"others->m{m}"], lambda x, y, scores=scores: scores[x, y], right, candidates)


@pytest.mark.usefixtures("uneven_blocks")
@pytest.mark.parametrize("every", [1, 3])
def test_shards_add_up_and_a_sample_of_queries_has_the_results_of_all_queries(every):
    data, relevance = repeated(seed=1, near=True)
    queries = np.arange(0, len(data), every)
    whole = rank_dataset(data, np.arange(len(data)), relevance=relevance)
    shares = [slice(0, 3), slice(3, 3), slice(3, 30), slice(30, len(queries))]
    counts = sum(count_shard(data, queries, share, relevance=relevance) for share in shares)
    for name, ranks in ranks_of(counts, data, queries, relevance=relevance).items():
        there = np.isin(whole[name].rows, queries)
        np.testing.assert_array_equal(ranks.rows, whole[name].rows[there])
        np.testing.assert_array_equal(ranks.greater, whole[name].greater[there])
        for ours, theirs in zip(ranks.answers, whole[name].answers, strict=True):
            np.testing.assert_allclose(ours, theirs[there], rtol=1e-12)


def ranked(levels, right):
    """Ranks of one query: its rows are the right ones, every other row has an item of its own there."""
    scores = np.array(levels, float) / 10
    found = torch.tensor(np.stack([scores, np.sqrt(1 - scores**2)], 1), dtype=torch.float32)
    vectors = torch.stack([torch.tensor([[1.0, 0.0]]).expand(len(levels), 2), found], 1)
    rows = np.arange(len(levels))
    items = np.stack([np.where(right, -1, rows), rows], 1)
    batch = Batch(rows, vectors, torch.ones(len(levels), 2, dtype=torch.bool))
    ranks = rank_batch(batch, ("a", "b"), relevance=Relevance(items, rows))["a->b"]
    at = ranks.rows == np.flatnonzero(right)[0]
    answers = ranks.answers and Answers(*(column[at] for column in ranks.answers))
    return Ranks(ranks.rows[at], ranks.greater[at], ranks.tied[at], ranks.gallery, answers)


CASES = [
    ([5, 4, 3, 2, 1, 0], [0, 1, 0, 1, 1, 0]),
    ([3, 3, 3, 3, 3, 3], [1, 0, 1, 0, 0, 0]),
    ([3, 3, 3, 3, 3, 3], [1, 1, 1, 0, 0, 1]),
    ([4, 4, 4, 2, 2, 2], [0, 1, 1, 1, 0, 0]),
    ([4, 4, 2, 2, 2, 1], [0, 0, 1, 1, 0, 1]),
    ([4, 3, 3, 3, 1, 1], [0, 1, 0, 1, 1, 0]),
    ([2, 2, 2, 2], [1, 1, 1, 1]),
    ([3, 2, 2], [0, 1, 0]),
]


@pytest.mark.parametrize(("levels", "right"), CASES)
def test_every_metric_is_its_mean_over_all_orders_that_ties_allow(levels, right):
    right = np.array(right, bool)
    ranks, expected = ranked(levels, right), reference.of_orders(levels, right)
    for cutoff in (1, 2, 5):
        assert hits(ranks, cutoff)[0] == pytest.approx(expected[f"R@{cutoff}"])
    assert reciprocal_ranks(ranks)[0] == pytest.approx(expected["MRR"])
    assert expected_rank(ranks)[0] == pytest.approx(expected["rank"])
    assert average_precision(ranks)[0] == pytest.approx(expected["mAP"])
    assert r_precision(ranks)[0] == pytest.approx(expected["R-precision"])
    assert metric("R@5", ranks)[0] == hits(ranks, 5)[0]


@pytest.mark.parametrize("count", [1, 2, 4, 6])
def test_chance_is_the_mean_over_all_orders(count):
    right = np.arange(6) < count
    expected = reference.of_orders(np.zeros(6), right)
    ranks = ranked([5, 3, 3, 2, 1, 0], right)
    for name in ("R@1", "R@5", "MRR", "mAP", "R-precision"):
        assert chance(name, ranks) == pytest.approx(expected[name])
    assert chance("median_rank", ranks) == pytest.approx(expected["rank"])
    assert chance("AUC", ranks) == pytest.approx(count / (count + 1) if count < 6 else 0.5)


def test_chance_of_queries_with_different_numbers_of_right_answers_is_the_mean_of_theirs():
    both = [ranked([5, 3, 3, 2, 1, 0], np.arange(6) < count) for count in (2, 4)]
    together = Ranks(
        *(np.concatenate(column) for column in zip(*(r[:3] for r in both), strict=True)),
        6,
        Answers(*(np.concatenate(column) for column in zip(*(r.answers for r in both), strict=True))),
    )
    for name in ("R@5", "MRR", "mAP"):
        assert chance(name, together) == pytest.approx(np.mean([chance(name, one) for one in both]))


@pytest.mark.parametrize("size", [2, 3, 5])
def test_a_smaller_gallery_holds_the_best_answer_and_wrong_ones_drawn_at_random(size):
    generator = np.random.default_rng(0)
    levels, right = np.array([4, 4, 3, 3, 3, 2, 1]), np.array([0, 0, 1, 1, 0, 1, 0], bool)
    ranks = ranked(levels, right)
    wrong = levels[~right]
    found = []
    for _ in range(40_000):
        drawn = generator.permutation(wrong)[: size - 1]
        level = int((drawn == 3).sum())  # with two right ones at 3
        found.append(not (drawn > 3).any() and generator.random() < 2 / (2 + level))
    assert hits_in_gallery(ranks, 1, size)[0] == pytest.approx(np.mean(found), abs=0.01)
    assert hits_in_gallery(random_order(ranks), 1, size)[0] == pytest.approx(3 / (size + 2))
    assert wins(ranks)[0] == pytest.approx(1 - (2 + 1 / 3) / 4)


def test_perfect_retrieval_of_repeated_images_scores_one_in_both_directions():
    generator = np.random.default_rng(0)
    images = generator.normal(size=(300, 16))
    text = np.repeat(images, 3, axis=0) + 1e-3 * generator.normal(size=(900, 16))
    found = evaluate(dataset_of({"image": np.repeat(images, 3, axis=0), "text": text})).as_dict()
    assert found["repeats"]["image"] == {"rows": 900, "different": 300, "templates": []}
    for name, queries, right in (("image->text", 300, 3.0), ("text->image", 900, 1.0)):
        direction = found["directions"][name]
        assert (direction["queries"], direction["right_answers"], direction["tie_spread"]) == (queries, right, 0)
        for one in ("R@1", "MRR", "mAP", "R-precision", "median_rank"):
            assert direction["metrics"][one]["value"] == 1
    assert found["groups"] == 300


def test_instances_that_match_are_right_for_each_other_and_drawn_together():
    data = simulate(120, 2, 8, noise=0.5)
    arrays = {f.name: f.array for f in data.modalities}
    scene = [f"s{i // 4}" if i < 100 else None for i in range(120)]
    found = evaluate(dataset_of(arrays, scene=scene), match="scene").as_dict()
    assert (found["match"], found["groups"]) == ("scene", 25 + 20)
    assert found["directions"]["m0->m1"]["right_answers"] == pytest.approx((100 * 4 + 20) / 120)
    assert found["pairwise"]["R@1"]["value"] > evaluate(dataset_of(arrays)).as_dict()["pairwise"]["R@1"]["value"]
    with pytest.raises(UsageError, match="'colour', expected one of scene"):
        evaluate(dataset_of(arrays, scene=scene), match="colour")


def test_repeating_rows_changes_no_number():
    data = simulate(150, 3, 8, noise=1.0, missing=0.2)
    again = np.random.default_rng(0).permutation(np.concatenate([np.arange(150), np.arange(0, 150, 2)]))
    copies = dataset_of({f.name: f.array[again] for f in data.modalities}, present=data.present[again])
    plain = dataset_of({f.name: f.array for f in data.modalities}, present=data.present)
    once, twice = evaluate(plain).as_dict(), evaluate(copies).as_dict()
    for name, direction in once["directions"].items():
        for one, number in direction["metrics"].items():
            assert twice["directions"][name]["metrics"][one]["value"] == pytest.approx(number["value"])
            assert twice["directions"][name]["metrics"][one]["chance"] == pytest.approx(number["chance"])
