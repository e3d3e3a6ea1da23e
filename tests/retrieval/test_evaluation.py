import json

import numpy as np
import pytest

from pmrl_cli.errors import DataError, UsageError
from pmrl_cli.retrieval import Sampling, evaluate
from tests.simulate import dataset_of, simulate


def plain(evaluation):
    """As JSON and back: fails on NaN and on anything that is not JSON."""
    return json.loads(json.dumps(evaluation.as_dict(), allow_nan=False))


def test_pairwise_is_the_mean_over_directions_and_its_interval_holds_it():
    found = plain(evaluate(simulate(150, 3, 16, noise=1.5), label="label"))
    pairs = [d for name, d in found["directions"].items() if not name.startswith("others")]
    assert len(pairs) == 6
    for metric, number in found["pairwise"].items():
        assert number["value"] == pytest.approx(np.mean([d["metrics"][metric]["value"] for d in pairs]))
        assert number["ci"][0] <= number["value"] <= number["ci"][1]
    assert set(found["fused"]) == {"R@1", "R@5", "R@10", "MRR", "median_rank"}
    assert found["fused"]["MRR"]["value"] > found["pairwise"]["MRR"]["value"]  # two witnesses beat one


def test_the_fusion_is_named_and_an_unknown_one_refused():
    data = simulate(30, 3, 8)
    assert plain(evaluate(data))["fusion"] == "leading"
    assert plain(evaluate(data, fusion="weighted"))["fusion"] == "weighted"
    with pytest.raises(UsageError, match="unknown fusion: 'mean', expected one of leading, weighted"):
        evaluate(data, fusion="mean")


def test_collapsed_modalities_score_chance_and_say_that_ties_did_it():
    found = plain(evaluate(dataset_of({"a": np.ones((40, 5)), "b": np.ones((40, 5))})))
    assert found["pairwise"]["R@1"]["value"] == pytest.approx(1 / 40)
    assert found["pairwise"]["R@1"]["chance"] == pytest.approx(1 / 40)
    assert found["directions"]["a->b"]["tie_spread"] == 1


def test_shuffled_pairs_score_chance():
    data = simulate(600, 2, 16, noise=0.1)
    order = np.random.default_rng(0).permutation(600)
    found = plain(evaluate(dataset_of({"a": data.modalities[0].array, "b": data.modalities[1].array[order]})))
    number = found["pairwise"]["MRR"]
    assert number["ci"][0] <= number["chance"] * 1.5
    assert number["value"] < 3 * number["chance"]


def test_groups_widen_the_interval_and_leave_the_value():
    data = simulate(400, 2, 8, noise=1.0)
    arrays = {f.name: f.array for f in data.modalities}
    hard = np.argsort(-np.linalg.norm(data.modalities[0].array - data.modalities[1].array, axis=1))
    owner = np.empty(400, int)
    owner[hard] = np.arange(400) // 20  # queries of one owner are equally hard
    data = dataset_of(arrays, owner=owner, group=owner)
    width = {}
    for group in ("owner", "group", None):
        found = plain(evaluate(data, group=group))
        assert (found["group"], found["groups"]) == (group or "group", 20)
        width[group] = np.diff(found["pairwise"]["MRR"]["ci"])[0]
    alone = plain(evaluate(dataset_of(arrays)))
    assert alone["groups"] == 400
    assert found["pairwise"]["MRR"]["value"] == alone["pairwise"]["MRR"]["value"]
    assert width["owner"] == width["group"] == width[None] > 1.5 * np.diff(alone["pairwise"]["MRR"]["ci"])[0]


def test_a_limit_on_queries_samples_the_queries_and_keeps_the_gallery():
    data = simulate(200, 2, 8)
    found = plain(evaluate(data, sampling=Sampling(50)))
    assert found["queries"] == 50
    assert found["instances_in_two"] == 200
    assert found["directions"]["m0->m1"]["gallery"] == 200
    assert found["directions"]["m0->m1"]["queries"] == 50


def test_the_sample_is_the_same_instances_in_any_order():
    data = simulate(100, 2, 8)
    order = np.random.default_rng(0).permutation(100)
    moved = dataset_of({f.name: f.array[order] for f in data.modalities}, ids=[f"id{i}" for i in order])
    rows = np.arange(100)
    chosen = data.smallest_by_hash(rows, 20, seed=3)
    assert set(order[moved.smallest_by_hash(rows, 20, seed=3)]) == set(chosen)
    assert set(data.smallest_by_hash(rows, 20, seed=4)) != set(chosen)


def test_a_row_without_label_is_neither_query_nor_candidate():
    data = simulate(60, 2, 8, noise=1.0)
    labels = [f"c{i % 3}" if i < 40 else None for i in range(60)]
    with_nulls = dataset_of({f.name: f.array for f in data.modalities}, label=labels)
    without = dataset_of({f.name: f.array[:40] for f in data.modalities}, label=labels[:40])
    first, second = (plain(evaluate(d, label="label"))["pairwise"]["label_mAP"] for d in (with_nulls, without))
    assert first["value"] == pytest.approx(second["value"])


def test_the_same_seed_gives_the_same_result():
    data = simulate(80, 3, 8, missing=0.2)
    assert plain(evaluate(data, sampling=Sampling(seed=1))) == plain(evaluate(data, sampling=Sampling(seed=1)))


def test_modalities_of_different_dims_are_refused_with_every_dim():
    data = dataset_of({"image": np.ones((4, 3)), "text": np.ones((4, 5))})
    with pytest.raises(DataError, match=r"image has 3 columns, text has 5 columns.*--model"):
        evaluate(data)


def test_one_modality_and_no_instance_are_refused():
    with pytest.raises(DataError, match="too few modalities: a, expected two"):
        evaluate(dataset_of({"a": np.ones((4, 3))}))
    with pytest.raises(DataError, match="no instance"):
        evaluate(dataset_of({"a": np.ones((0, 3)), "b": np.ones((0, 3))}))
    lonely = np.array([[True, False], [False, True]])
    with pytest.raises(DataError, match="no instance"):
        evaluate(dataset_of({"a": np.ones((2, 3)), "b": np.ones((2, 3))}, present=lonely))


def test_an_unknown_column_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match="'colour', expected one of group, label"):
        evaluate(simulate(20, 2), label="colour")


@pytest.mark.parametrize("scale", [1e30, 1e35, 1e-30, 1e-42])
def test_lengths_whose_squares_overflow_or_vanish_change_nothing(scale):
    """x / |x| of such a row was zero or not a number, and the row ranked as if it had no direction."""
    data = simulate(60, 2, 8, noise=0.5)
    exact = {name: np.round(features.array * 64) for name, features in zip("ab", data.modalities, strict=True)}
    scaled = {name: array.astype(np.float32).copy() for name, array in exact.items()}
    scaled["a"][::2] *= np.float32(scale)
    found, wanted = (plain(evaluate(dataset_of(arrays))) for arrays in (scaled, exact))
    wanted = wanted["pairwise"]["MRR"]["value"]
    assert found["pairwise"]["MRR"]["value"] == pytest.approx(wanted, abs=0.02 if scale == 1e-42 else 1e-6)
