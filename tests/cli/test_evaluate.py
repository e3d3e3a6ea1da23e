import json

import numpy as np
import pytest

from pmrl_cli.data.leaks import Leaks
from pmrl_cli.errors import DataError, UsageError
from tests.run_command import CommandRunner
from tests.simulate import dataset_of, simulate


@pytest.fixture
def run(monkeypatch, capsys):
    return CommandRunner(monkeypatch, capsys)


class HalfModel:
    """Stands in for an Aligner: judges the second half, whose modalities it makes equal."""

    @classmethod
    def load(cls, path, *, device):
        return cls()

    def rows(self, dataset, split):
        half = np.arange(len(dataset) // 2, len(dataset))
        return half, f"{len(half)} of {len(dataset)} instances: {split}"

    def leaks(self, dataset, rows):
        return Leaks(len(rows), 3, {"m0": 3, "m1": 0})

    def embed_dataset(self, dataset, rows, *, max_memory, processes):
        first = dataset.modalities[0].array[rows]
        labels = dataset.columns["label"].take(rows).to_pylist()
        return dataset_of(dict.fromkeys(dataset.names, first), ids=[f"id{i}" for i in rows], label=labels)


@pytest.mark.parametrize("modalities", [2, 3, 4, 6])
def test_the_screen_fits_and_shows_value_chance_and_interval(run, modalities):
    data = simulate(150, modalities, 8, noise=1.0, missing=0.2)
    code, out, err = run("evaluate", data)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 34
    assert "…" not in out
    assert "\x1b" not in out
    _, as_json, _ = run("evaluate", data, "--json")
    result = json.loads(as_json)
    number = result["pairwise"]["MRR"]
    low, high = number["ci"]
    shown = next(line for line in lines if line.startswith("MRR ")).split()
    assert shown[1:] == [f"{number['value']:.3f}", f"{number['chance']:.3f}", f"{low:.3f}", "..", f"{high:.3f}"]
    if modalities <= 4:
        assert all(any(line.startswith(name) for line in lines) for name in result["directions"])
    else:
        assert any(line.startswith("weakest 16 of 36") for line in lines)


def test_copies_are_noted_and_metrics_of_several_relevant_candidates_are_shown(run):
    images = np.repeat(np.random.default_rng(0).normal(size=(40, 16)), 3, axis=0)
    text = images + 0.3 * np.random.default_rng(1).normal(size=images.shape)
    data = dataset_of({"image": images, "text": text}, scene=[f"s{i // 6}" for i in range(120)])
    _, out, _ = run("evaluate", data)
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "120 rows of image hold 40 different vectors: one query, one candidate" in lines
    assert [line.split("  ")[0] for line in lines if line.startswith(("mAP", "R-prec"))] == ["mAP", "R-precision"]
    assert lines[-1].endswith("draws of 40 groups (equal vectors), gallery fixed")
    _, out, _ = run("evaluate", data, "--match", "scene")
    assert out.splitlines()[-1].endswith("draws of 20 groups (scene, equal vectors), gallery fixed")
    assert json.loads(run("evaluate", data, "--match", "scene", "--json")[1])["match"] == "scene"
    assert run("evaluate", data, "--fail-under", "mAP=0.1")[0] == 0


def test_long_names_of_modalities_are_cut_and_not_wrapped(run):
    data = dataset_of({f"a_modality_with_a_very_long_name_{i}": np.eye(40) for i in range(3)})
    _, out, _ = run("evaluate", data)
    assert max(map(len, out.splitlines())) <= 80
    assert len(out.splitlines()) <= 34


def test_json_is_one_sorted_object_and_nothing_else(run):
    _, out, _ = run("evaluate", simulate(60, 3, 8), "--json")
    result = json.loads(out)
    assert result["schema"] == "pmrl.evaluate/1"
    assert out == json.dumps(result, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"
    assert result["label"] == "label"  # found in the side columns without being named
    assert result["group"] == "group"


def test_missing_modalities_take_part_unless_asked_otherwise(run):
    run("evaluate", simulate(40, 2, 4))
    assert run.asked["join"] == "outer"
    assert run.asked["files"] == ["a.h5", "b.h5"]
    run("evaluate", simulate(40, 2, 4), "--join", "inner", "--on-bad", "drop")
    assert (run.asked["join"], run.asked["on_bad"]) == ("inner", "drop")


def test_fusion_defaults_to_the_leading_direction_and_the_screen_names_it(run):
    data = simulate(150, 4, 8, noise=[0.5, 0.5, 0.5, 3.0])
    screens, found = {}, {}
    for fusion in ("leading", "weighted"):
        screens[fusion] = run("evaluate", data, "--fusion", fusion)[1]
        found[fusion] = json.loads(run("evaluate", data, "--fusion", fusion, "--json")[1])
    assert run("evaluate", data)[1] == screens["leading"]
    assert ("others: the mean" in screens["leading"], "others: the mean" in screens["weighted"]) == (False, True)
    assert {fusion: one["fusion"] for fusion, one in found.items()} == {f: f for f in found}
    assert found["leading"]["pairwise"] == found["weighted"]["pairwise"]
    assert found["leading"]["fused"] != found["weighted"]["fused"]


def test_a_gate_that_is_met_prints_nothing_and_one_that_is_not_exits_1(run):
    data = simulate(100, 3, 16, noise=0.1)
    assert run("evaluate", data, "--fail-under", "R@1=0.5", "--fail-under", "fused.MRR=0.5")[::2] == (0, "")
    code, out, err = run("evaluate", data, "--fail-under", "directions.m0->m1.metrics.R@1=1.01", "--json")
    assert code == 1
    assert json.loads(out)["schema"] == "pmrl.evaluate/1"  # the answer is printed all the same
    assert err == "not met: directions.m0->m1.metrics.R@1 is 1.00, under 1.01\n"


def test_a_gate_on_an_unknown_key_names_the_known_ones(run):
    with pytest.raises(UsageError, match=r"'recall', expected one of R@1, R@5, R@10, MRR, .*fused\.R@1"):
        run("evaluate", simulate(40, 3, 4), "--fail-under", "recall=1")


@pytest.mark.parametrize("text", ["R@1", "R@1=high", "=1", "R@1=nan"])
def test_a_gate_that_is_no_key_and_number_is_refused_before_reading(run, text):
    with pytest.raises(UsageError, match="--fail-under is not KEY=NUMBER"):
        run("evaluate", None, "--fail-under", text)


def test_evaluate_with_a_model_uses_its_split_and_its_space(run):
    data = simulate(80, 2, 8, noise=5.0)
    _, out, _ = run("evaluate", data, "--model", "m", "--split", "test", "--json", model=HalfModel)
    result = json.loads(out)
    assert result["scope"] == "40 of 80 instances: test"
    assert result["instances"] == 40
    assert result["pairwise"]["R@1"]["value"] == 1
    _, out, _ = run("evaluate", data, "--model", "m", model=HalfModel)
    assert "40 of 80 instances: auto" in out
    assert "3 of 40 evaluated instances hold vectors that trained the model (m0 3): its" in out
    assert max(map(len, out.splitlines())) <= 80


def test_a_split_needs_a_model(run):
    with pytest.raises(UsageError, match="--split without --model"):
        run("evaluate", None, "--split", "test")


def test_spaces_of_different_dims_need_a_model(run):
    with pytest.raises(DataError, match=r"a has 3 columns, b has 4 columns.*Pass --model MODEL"):
        run("evaluate", dataset_of({"a": np.ones((5, 3)), "b": np.ones((5, 4))}))


def test_notes_of_reading_go_to_standard_error_unless_quiet(run):
    data = simulate(40, 2, 4)
    data = type(data)(data.ids, data.modalities, data.present, notes=("instances are known by row number",))
    assert run("evaluate", data)[2] == "note: instances are known by row number\n"
    assert run("evaluate", data, "-q")[2] == ""


def test_a_sample_of_queries_is_noted_on_the_screen(run):
    assert "30 of them, chosen by hash, are queries" in run("evaluate", simulate(100, 2, 4), "--queries", "30")[1]


def test_a_label_that_is_asked_for_adds_the_probe_and_the_weakest_classes(run):
    data = simulate(240, 3, 8, classes=12)
    assert "linear probe" not in run("evaluate", data)[1]
    _, out, _ = run("evaluate", data, "--label", "label")
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    result = json.loads(run("evaluate", data, "--label", "label", "--json")[1])
    for name, one in result["probe"]["modalities"].items():
        shown = next(line for line in lines if line.startswith(f"linear probe, {name} "))
        assert f" {one['accuracy']['value']:.3f} " in shown
    start = next(i for i, line in enumerate(lines) if line.startswith("weakest 10 of 12 classes"))
    classes = result["by_class"]["classes"]
    weakest = sorted(classes, key=lambda name: classes[name]["metrics"]["MRR"]["value"])[:10]
    assert [line.split()[0] for line in lines[start + 1 : start + 11]] == weakest


def test_a_modality_of_classes_is_searched_and_does_not_take_part(run):
    data = simulate(40, 1, 8)
    vectors = data.modalities[0].array
    names = ["c0", "c1", "c2", "c3"]
    labels = data.columns["label"].to_pylist()
    prompts = [vectors[[label == name for label in labels]].mean(0) for name in names]
    present = np.arange(44)[:, None] < 40
    whole = dataset_of(
        {"m0": np.concatenate([vectors, np.zeros((4, 8))]), "text": np.concatenate([np.zeros((40, 8)), prompts])},
        present=np.concatenate([present, ~present], axis=1),
        ids=[*data.ids.to_pylist(), *names],
        label=[*labels, *[None] * 4],
    )
    _, out, _ = run("evaluate", whole, "--classes", "text")
    assert run.asked["min_modalities"] == 1
    assert "all 40 instances, compared as they are" in out
    found = json.loads(run("evaluate", whole, "--classes", "text", "--json")[1])["zero_shot"]["modalities"]["m0"]
    shown = next(line for line in out.splitlines() if line.startswith("zero-shot top-1, m0"))
    assert shown.split()[3] == f"{found['metrics']['top-1']['value']:.3f}"
    assert found["metrics"]["top-1"]["value"] > 0.4 > found["metrics"]["top-1"]["chance"]
    with pytest.raises(UsageError, match="--classes touch and the modalities m0, text"):
        run("evaluate", whole, "--classes", "touch")
