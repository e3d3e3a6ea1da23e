"""Zero-shot classification against loops over instances and classes."""

import numpy as np
import pytest

from pmrl_cli.errors import DataError, UsageError
from pmrl_cli.retrieval import evaluate
from pmrl_cli.retrieval.zero_shot import split_off_classes
from tests.simulate import dataset_of

NAMES = [f"kind{c}" for c in range(8)]


def scene(n=60, noise=0.8, seed=0):
    """Instances of eight classes in two modalities, some lacking one, and a prompt of each class."""
    generator = np.random.default_rng(seed)
    prompts = generator.normal(size=(8, 12))
    kinds = generator.integers(8, size=n)
    arrays = {name: prompts[kinds] + noise * generator.normal(size=(n, 12)) for name in ("image", "sound")}
    present = generator.random((n, 2)) > 0.3
    present[~present.any(1)] = True
    labels = [NAMES[kind] if i % 9 else None for i, kind in enumerate(kinds)]
    return dataset_of(arrays, present=present, label=labels), dataset_of({"text": prompts}, ids=NAMES), kinds, labels


def test_the_nearest_class_by_cosine_is_counted_for_each_modality_and_all_together():
    dataset, classes, kinds, labels = scene()
    found = evaluate(dataset, classes=classes).as_dict()["zero_shot"]
    assert (found["of"], found["classes"], list(found["modalities"])) == ("text", 8, ["image", "sound", "fused"])
    unit = [v / np.linalg.norm(v) for v in classes.modalities[0].array.astype(float)]
    for m, name in enumerate(dataset.names):
        tops = {1: [], 5: []}
        of_each = {}
        for i, label in enumerate(labels):
            if label is None or not dataset.present[i, m]:
                continue
            vector = dataset.modalities[m].array[i]
            better = sum(vector @ other > vector @ unit[kinds[i]] for other in unit)
            of_each.setdefault(label, []).append(better < 1)
            for top, hits in tops.items():
                hits.append(better < top)
        one = found["modalities"][name]
        assert one["instances"] == len(tops[1])
        assert {kind: (each["instances"], each["right"]) for kind, each in one["by_class"].items()} == {
            kind: (len(hits), pytest.approx(np.mean(hits))) for kind, hits in of_each.items()
        }
        for top, hits in tops.items():
            number = one["metrics"][f"top-{top}"]
            assert number["value"] == pytest.approx(np.mean(hits))
            assert number["chance"] == pytest.approx(top / 8)
            assert number["ci"][0] <= number["value"] <= number["ci"][1]
    fused = found["modalities"]["fused"]
    assert fused["instances"] == sum(label is not None for label in labels)


def test_ties_are_in_random_order_and_five_of_five_is_left_out():
    dataset = scene()[0]
    flat = dataset_of({"text": np.ones((8, 12))}, ids=NAMES)
    found = evaluate(dataset, classes=flat).as_dict()["zero_shot"]["modalities"]["image"]["metrics"]
    assert found["top-1"]["value"] == pytest.approx(1 / 8)
    assert found["top-5"]["value"] == pytest.approx(5 / 8)
    few = dataset_of({"text": np.eye(5, 12)}, ids=NAMES[:5])
    assert list(evaluate(dataset, classes=few).as_dict()["zero_shot"]["modalities"]["image"]["metrics"]) == ["top-1"]


def test_one_modality_is_enough_beside_the_classes():
    dataset, classes, _, _ = scene()
    together = np.zeros((68, 2), bool)
    together[:60, 0] = together[60:, 1] = True
    arrays = {
        "image": np.concatenate([dataset.modalities[0].array, np.zeros((8, 12))]),
        "text": np.concatenate([np.zeros((60, 12)), classes.modalities[0].array]),
    }
    labels = [*dataset.columns["label"].to_pylist(), *[None] * 8]
    ids = [*dataset.ids.to_pylist(), *NAMES]
    whole = dataset_of(arrays, present=together & (np.abs(np.stack(list(arrays.values()), 1)).sum(2) > 0), ids=ids,
                       label=labels)  # fmt: skip
    rest, apart = split_off_classes(whole, "text")
    found = evaluate(rest, classes=apart).as_dict()
    assert apart.ids.to_pylist() == NAMES
    assert (found["pairwise"], found["directions"]) == (None, {})
    assert list(found["zero_shot"]["modalities"]) == ["image"]
    ours, theirs = (one["zero_shot"]["modalities"]["image"]["metrics"]["top-1"]["value"] for one in (
        found, evaluate(dataset, classes=classes).as_dict()))  # fmt: skip
    assert ours == theirs


def test_what_cannot_be_classified_is_refused():
    dataset, classes, _, _ = scene()
    with pytest.raises(UsageError, match="no modality of classes: --classes touch"):
        split_off_classes(dataset, "touch")
    with pytest.raises(DataError, match="no label is the id of a class of text: labels kind.*ids 'a', 'b', 'c'"):
        evaluate(dataset, classes=dataset_of({"text": np.eye(3, 12)}, ids=["a", "b", "c"]))
    with pytest.raises(DataError, match="not in the space of the instances: text of 3 columns"):
        evaluate(dataset, classes=dataset_of({"text": np.eye(3)}, ids=["a", "b", "c"]))
    with pytest.raises(UsageError, match="classes without labels"):
        evaluate(dataset_of({"image": np.eye(12)}), classes=classes)
