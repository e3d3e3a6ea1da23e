"""Numbers of single classes against loops over queries, and against what they are parts of."""

import numpy as np
import pytest

from pmrl_cli.retrieval import evaluate
from pmrl_cli.retrieval.by_class import Queries, by_class
from pmrl_cli.retrieval.intervals import Units
from tests.simulate import dataset_of, simulate


def test_a_class_is_the_mean_of_its_queries_and_its_draws_those_of_its_groups():
    generator = np.random.default_rng(0)
    classes = np.array([0, 1, 1, -1, 0, 1, 1, 0])
    units = Units.of(np.array([5, 5, 3, 3, 1, 1, 7, 7]), np.arange(8), seed=2)
    directions = [
        Queries(rows, generator.random(len(rows)), generator.random(len(rows)))
        for rows in (np.arange(8), np.array([1, 2, 5, 6]))
    ]
    found = by_class({"MRR": directions}, classes, units)
    draws = np.random.default_rng(2).integers(4, size=(64, 4))  # the first of the bootstrap
    for c in (0, 1):
        values, chances, drawn = [], [], []
        for one in directions:
            mine = [q for q, row in enumerate(one.rows) if classes[row] == c]
            if not mine:
                continue
            values.append(np.mean([one.values[q] for q in mine]))
            chances.append(np.mean([one.chance[q] for q in mine]))
            sums = []
            for draw in draws:
                picked = [one.values[q] for g in draw for q in mine if units.groups[one.rows[q]] == g]
                sums.append(np.mean(picked) if picked else np.nan)
            drawn.append(sums)
        assert found[c]["MRR"].value == pytest.approx(np.mean(values))
        assert found[c]["MRR"].chance == pytest.approx(np.mean(chances))
        np.testing.assert_allclose(found[c]["MRR"].draws[:64], np.mean(drawn, axis=0))


def test_classes_weighted_by_their_queries_make_up_the_whole():
    found = evaluate(simulate(150, 3, 16, noise=1.5)).as_dict()
    classes = found["by_class"]["classes"]
    assert [one["instances"] for one in classes.values()] == sorted(
        (one["instances"] for one in classes.values()), reverse=True
    )
    assert found["by_class"]["others"] == 0
    for metric in ("R@1", "MRR", "label_mAP"):
        for key in ("value", "chance"):
            parts = [(one["instances"], one["metrics"][metric][key]) for one in classes.values()]
            whole = sum(n * value for n, value in parts) / 150
            assert found["pairwise"][metric][key] == pytest.approx(whole)


def test_a_class_whose_partners_are_shuffled_is_the_one_that_fails():
    data = simulate(200, 2, 16, noise=0.3)
    arrays = {f.name: f.array.copy() for f in data.modalities}
    bad = np.flatnonzero([label == "c2" for label in data.columns["label"].to_pylist()])
    arrays["m1"][bad] = arrays["m1"][np.roll(bad, 1)]
    classes = evaluate(dataset_of(arrays, label=data.columns["label"])).as_dict()["by_class"]["classes"]
    assert min(classes, key=lambda name: classes[name]["metrics"]["MRR"]["value"]) == "c2"
    assert classes["c2"]["metrics"]["R@1"]["value"] < 0.2 < 0.9 < classes["c0"]["metrics"]["R@1"]["value"]


def test_the_probe_says_what_a_linear_map_knows_of_the_label_beside_the_most_frequent_class():
    data = simulate(200, 2, 16, noise=[0.3, 30.0])
    labels = ["rare" if i < 3 else label for i, label in enumerate(data.columns["label"].to_pylist())]
    found = evaluate(dataset_of({f.name: f.array for f in data.modalities}, label=labels)).as_dict()["probe"]
    assert (found["classes"], found["folds"]) == (4, 5)
    assert list(found["modalities"]) == ["m0", "m1", "fused"]
    most = max(labels.count(label) for label in set(labels)) / 197
    for one in found["modalities"].values():
        assert one["instances"] == 197
        assert one["accuracy"]["chance"] == pytest.approx(most)
        each = one["by_class"].values()
        assert sorted(one["by_class"]) == sorted(set(labels) - {"rare"})
        assert sum(of["instances"] for of in each) == 197
        assert sum(of["instances"] * of["right"] for of in each) == pytest.approx(197 * one["accuracy"]["value"])
    accuracy = {name: one["accuracy"]["value"] for name, one in found["modalities"].items()}
    assert accuracy["m0"] > 0.6 > 0.45 > accuracy["m1"]
    few = dataset_of({f.name: f.array for f in data.modalities}, label=[f"l{i // 4}" for i in range(200)])
    assert evaluate(few).as_dict()["probe"] is None
