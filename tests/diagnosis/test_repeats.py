"""Vectors that stand in several rows: judged as ``evaluate`` judges them, drawn and shuffled as one."""

import json

import numpy as np
import pytest

from pmrl_cli.data.shards import shard_rows
from pmrl_cli.diagnosis import Header, State, diagnose, diagnose_state, state_of
from pmrl_cli.diagnosis.compare import compare
from pmrl_cli.diagnosis.evidence import Evidence
from pmrl_cli.diagnosis.run import StateSampling
from pmrl_cli.diagnosis.statistics.modality import effective_dimensions
from pmrl_cli.retrieval import evaluate
from tests.simulate import dataset_of


def captioned(images, captions, *, noise, seed=0):
    generator = np.random.default_rng(seed)
    vectors = np.repeat(generator.normal(size=(images, 16)), captions, axis=0)
    order = generator.permutation(images * captions)
    text = vectors + noise * generator.normal(size=vectors.shape)
    return dataset_of({"image": vectors[order], "text": text[order]})


def plain(diagnosis):
    return json.loads(json.dumps(diagnosis.result))


def test_retrieval_is_that_of_evaluate_with_several_right_answers():
    data = captioned(80, 5, noise=1.0)
    found, expected = plain(diagnose(data)), evaluate(data).as_dict()
    for direction in ("image->text", "text->image"):
        ours = found["pair"]["image|text"]["retrieval"][direction]
        theirs = expected["directions"][direction]
        assert ours["gallery"] == theirs["gallery"] == (400 if direction == "image->text" else 80)
        for metric in ("R@1", "R@5", "MRR"):
            assert ours[metric]["value"] == pytest.approx(theirs["metrics"][metric]["value"])
            assert ours[metric]["chance"] == pytest.approx(theirs["metrics"][metric]["chance"])
    perfect = plain(diagnose(captioned(80, 5, noise=0.01)))["retrieval"]
    assert perfect["pairwise"]["R@1"]["value"] == 1
    assert perfect["tie_spread"] == 0


def test_copies_of_one_pair_are_not_taken_for_as_many_witnesses():
    generator = np.random.default_rng(0)
    once = {name: generator.normal(size=(150, 16)) for name in ("a", "b")}
    many = {name: np.repeat(array, 6, axis=0) for name, array in once.items()}
    interval = {}
    for name, arrays in (("once", once), ("many", many)):
        found = plain(diagnose(dataset_of(arrays)))
        interval[name] = np.diff(found["retrieval"]["pairwise"]["MRR"]["ci"])[0]
    assert interval["many"] > 0.7 * interval["once"]


def test_dimensions_are_those_of_the_different_vectors():
    """Regression: nine images in 45 rows were said to collapse to nine of 512 dimensions."""
    images = np.random.default_rng(0).normal(size=(12, 40))
    many = dataset_of({"image": np.repeat(images, 5, axis=0), "text": np.random.default_rng(1).normal(size=(60, 40))})
    once = dataset_of({"image": images, "text": np.random.default_rng(1).normal(size=(12, 40))})
    found, expected = (effective_dimensions(Evidence(state_of(data)), 0) for data in (many, once))
    assert found.value == pytest.approx(expected.value, rel=1e-5)
    assert found.n == 12


def test_states_of_shards_merge_to_that_of_the_whole():
    data = captioned(60, 4, noise=0.5)
    parts = [state_of(data.part(shard_rows(240, i, 3)), shard=(i, 3)) for i in range(3)]
    merged = parts[0]
    for part in parts[1:]:
        merged.merge(part)
    arrays = merged.arrays()
    restored = State.from_arrays(merged.header, {name: np.array(array) for name, array in arrays.items()})
    whole = plain(diagnose_state(state_of(data)))["retrieval"]["pairwise"]["MRR"]
    assert plain(diagnose_state(restored))["retrieval"]["pairwise"]["MRR"]["value"] == pytest.approx(whole["value"])
    del arrays["reservoir.items"]  # of an older version: every vector is one of its own
    old = State.from_arrays(merged.header, arrays)
    assert isinstance(old.header, Header)
    direction = plain(diagnose_state(old))["pair"]["image|text"]["retrieval"]["text->image"]
    assert direction["gallery"] == 240


def test_two_diagnoses_with_several_right_answers_compare():
    data, worse = captioned(60, 4, noise=0.5), captioned(60, 4, noise=1.5)
    after, before = plain(diagnose(data)), plain(diagnose(worse))
    found = compare(after, before, name="before.json")["delta"]
    for metric in ("R@1", "MRR"):
        expected = (one["retrieval"]["pairwise"][metric]["value"] for one in (after, before))
        delta = next(value for key, value in found.items() if key.endswith(metric) and "->" not in key)
        assert (delta["after"], delta["before"]) == tuple(pytest.approx(value) for value in expected)


def test_rows_that_share_a_vector_are_counted_and_noted():
    generator = np.random.default_rng(0)
    arrays = {name: generator.normal(size=(300, 16)) for name in ("a", "b")}
    arrays["b"] += arrays["a"]
    assert "TIES" not in {one["code"] for one in plain(diagnose(dataset_of(arrays)))["verdict"]["findings"]}
    arrays["a"][:30] = arrays["a"][30:60]
    found = plain(diagnose(dataset_of(arrays)))
    assert (found["modality"]["a"]["repeated"], found["modality"]["b"]["repeated"]) == (0.2, 0)
    ties = next(one for one in found["verdict"]["findings"] if one["code"] == "TIES")
    assert ties["subject"] == ["a"]
    assert ties["evidence"] == ["modality.a.repeated"]


def test_noise_whose_rows_repeat_is_not_paired():
    generator = np.random.default_rng(0)
    noise = {name: np.repeat(generator.normal(size=(150, 16)), 6, axis=0) for name in ("a", "b")}
    found = plain(diagnose(dataset_of(noise)))
    assert found["pair"]["a|b"]["strength"]["value"] < 4
    assert [one["code"] for one in found["verdict"]["findings"]] == ["NO_PAIRING", "TIES"]


def shown_alike(things, times, *, noise, seed=0):
    """Instances of a thing each, seen anew every time: no two vectors are equal."""
    generator = np.random.default_rng(seed)
    vectors = np.repeat(generator.normal(size=(things, 16)), times, axis=0)
    order = generator.permutation(things * times)
    arrays = {name: (vectors + noise * generator.normal(size=vectors.shape))[order] for name in ("image", "text")}
    return dataset_of(arrays, thing=[f"t{i // times}" for i in order])


def test_with_a_match_any_instance_of_the_same_value_is_right_as_evaluate_has_it():
    data = shown_alike(70, 4, noise=0.3)
    found, expected = plain(diagnose(data, match="thing")), evaluate(data, match="thing").as_dict()
    assert found["inputs"]["match"] == "thing"
    assert found["inputs"]["groups"] == 70
    for direction in ("image->text", "text->image"):
        ours = found["pair"]["image|text"]["retrieval"][direction]
        for metric in ("R@1", "R@5", "MRR"):
            theirs = expected["directions"][direction]["metrics"][metric]
            assert ours[metric]["value"] == pytest.approx(theirs["value"])
            assert ours[metric]["chance"] == pytest.approx(theirs["chance"])
        assert ours["R@1"]["value"] > 0.98
    alone = plain(diagnose(data))["retrieval"]["pairwise"]["R@1"]["value"]
    assert alone < 0.6  # the other three look like the partner
    both = (diagnose(data, match="thing"), diagnose(data))
    wide, narrow = (np.diff(plain(one)["alignment"]["A"]["ci"])[0] for one in both)
    assert wide > narrow


def test_a_match_is_kept_by_states_and_their_merge():
    data = shown_alike(60, 4, noise=0.3)
    parts = [state_of(data.part(shard_rows(240, i, 3)), match="thing", shard=(i, 3)) for i in range(3)]
    merged = parts[0]
    for part in parts[1:]:
        merged.merge(part)
    restored = State.from_arrays(Header.from_dict(merged.header.as_dict()), merged.arrays())
    whole = plain(diagnose_state(state_of(data, match="thing")))
    again = plain(diagnose_state(restored))
    assert again["retrieval"]["pairwise"]["R@1"]["value"] == whole["retrieval"]["pairwise"]["R@1"]["value"]
    assert again["inputs"]["groups"] == 60
    sample = state_of(data, match="thing", sampling=StateSampling(reservoir=50)).reservoir.chosen()
    assert len(sample) == 48  # of twelve things, whole


def test_without_a_value_an_instance_matches_only_itself():
    data = shown_alike(60, 3, noise=0.3)
    none = dataset_of(
        {one.name: np.array(one.array) for one in data.modalities}, thing=[None] * len(data), ids=data.ids.to_pylist()
    )
    found, alone = (plain(diagnose(none, **options))["retrieval"] for options in ({"match": "thing"}, {}))
    assert found["pairwise"]["R@1"]["value"] == alone["pairwise"]["R@1"]["value"]
