"""A fit that goes on from a model: what was learned stays, new modalities join, and what cannot be is refused."""

import json

import numpy as np
import pytest
from numpy.linalg import norm

from pmrl_cli import Aligner
from pmrl_cli.closed_form.extension import axis_lengths, extend
from pmrl_cli.closed_form.projection import Projection
from pmrl_cli.data.arrays import dataset_from_arrays
from pmrl_cli.errors import DataError, StateError, UsageError
from pmrl_cli.fit.context import Hooks
from pmrl_cli.fit.result import Continued
from pmrl_cli.process_group import SINGLE_PROCESS
from pmrl_cli.train.loop import Interrupted
from tests.distributed.processes import in_processes

FIT = {"adapter": "linear", "steps": 30, "refit": False, "dropout": 0.0, "device": "cpu", "dim": 8}
GO_ON = {"steps": 60, "learning_rate": 2e-2, "refit": False, "device": "cpu"}
PROTECTING = ("input", "dual", "disjoint")
SPANS = {name: np.linalg.qr(np.random.default_rng(i).standard_normal((24, 24)))[0] for i, name in enumerate("abc")}


def pairs(names, first, seed, rows=160):
    """Instances of 8 shared factors, each modality in 8 of its 24 dimensions from ``first``; ids of the seed."""
    draws = np.random.default_rng(seed)
    shared = draws.standard_normal((rows, 8))
    features = {}
    for name in names:
        span = SPANS[name][:, first : first + 8]
        features[name] = shared @ draws.standard_normal((8, 8)) @ span.T + 1e-3 * draws.standard_normal((rows, 24))
    return features, [f"{seed}-{i}" for i in range(rows)]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    features, ids = pairs("ab", 0, seed=1)
    folder = tmp_path_factory.mktemp("models") / "base"
    Aligner(**FIT).fit(features, ids).save(folder)
    return folder


def test_vectors_of_earlier_instances_stay_while_new_ones_are_learned(base):
    before, _ = pairs("ab", 0, seed=1)
    later, ids = pairs("ab", 6, seed=2)
    old = Aligner.load(base, device="cpu")
    model = Aligner(continue_from=str(base), **GO_ON).fit(later, ids)
    free = Aligner(continue_from=str(base), protect="none", **GO_ON).fit(later, ids)
    moved = {}
    for name, trained in (("input", model), ("none", free)):
        found, wanted = trained.transform(before), old.transform(before)
        moved[name] = max(float(norm(found[m] - wanted[m], axis=1).mean()) for m in "ab")
    assert moved["input"] < 0.12
    assert moved["none"] > 3 * moved["input"]

    def recall(trained):
        found = trained.transform(later)
        return (np.argmax(found["a"] @ found["b"].T, axis=1) == np.arange(160)).mean()

    assert recall(model) > recall(old) + 0.2


def test_a_new_modality_joins_and_the_space_stays(base):
    before, _ = pairs("ab", 0, seed=1)
    later, ids = pairs("bc", 0, seed=3)
    model = Aligner(continue_from=str(base), **GO_ON).fit(later, ids)
    assert model.names == ("a", "b", "c")
    assert model.dim == 8
    old = Aligner.load(base, device="cpu")
    # No instance of this fit has a: to the bit.
    assert np.array_equal(model.transform({"a": before["a"]})["a"], old.transform({"a": before["a"]})["a"])
    found = model.transform(later)
    right = (np.argmax(found["c"] @ found["b"].T, axis=1) == np.arange(160)).mean()
    assert right > 0.5
    config = json.loads(model.texts["config.json"])["continued"]
    assert config["new"] == ["c"]
    assert set(config["ranks"][0]) == {"b"}
    assert config["ranks"][0]["b"]["inputs"] < config["ranks"][0]["b"]["of"]
    assert "Went on from the model" in model.texts["README.md"]


def test_ids_of_the_model_stay_known_and_it_can_be_gone_on_from_again(base, tmp_path):
    later, ids = pairs("ab", 4, seed=2)
    model = Aligner(continue_from=str(base), **GO_ON).fit(later, ids)
    model.save(tmp_path / "second")
    again = Aligner.load(tmp_path / "second", device="cpu")
    first, first_ids = pairs("ab", 0, seed=1)
    for features, of in ((first, first_ids), (later, ids)):
        dataset = dataset_from_arrays(features, of, None)
        rows, _ = again.rows(dataset, "train")
        assert len(rows) > 50
    third, third_ids = pairs("bc", 8, seed=4)
    third_model = Aligner(continue_from=str(tmp_path / "second"), **GO_ON).fit(third, third_ids)
    assert third_model.names == ("a", "b", "c")
    seen = third_model.model.members[0].encoder.seen
    assert int(seen.together[1, 1]) > int(seen.together[0, 0]) > int(seen.together[2, 2]) > 0
    assert seen.together[0, 2] == 0


def test_an_interrupted_fit_continues_bit_for_bit(base, tmp_path):
    later, ids = pairs("bc", 4, seed=2)
    whole = Aligner(continue_from=str(base), **GO_ON).fit(later, ids)
    calls = iter(range(10**6))
    hooks = Hooks(should_stop=lambda: next(calls) == 31)
    with pytest.raises(Interrupted):
        Aligner(continue_from=str(base), **GO_ON).fit(later, ids, checkpoint=tmp_path / "state", hooks=hooks)
    resumed = Aligner(continue_from=str(base), **GO_ON).fit(later, ids, checkpoint=tmp_path / "state")
    assert resumed.texts["history.csv"] == whole.texts["history.csv"]
    for name, vectors in whole.transform(later).items():
        assert np.array_equal(resumed.transform(later)[name], vectors)


def gone_on(processes, folder):
    later, ids = pairs("bc", 4, seed=2)
    models = {
        protect: Aligner(continue_from=folder, protect=protect, **GO_ON | {"steps": 15}) for protect in PROTECTING
    }
    return {protect: model.fit(later, ids, processes=processes).transform(later) for protect, model in models.items()}


def test_two_processes_go_on_as_one_does(base):
    alone = gone_on(SINGLE_PROCESS, str(base))
    for found in in_processes(gone_on, 2, str(base)):
        for protect, vectors in alone.items():
            for name, one in vectors.items():
                np.testing.assert_allclose(found[protect][name], one, atol=2e-3, err_msg=protect)


def test_no_protected_direction_and_no_free_direction_are_reported(base):
    later, ids = pairs("ab", 4, seed=2)
    nothing = Aligner(continue_from=str(base), protect_energy=0.0, **GO_ON).fit(later, ids)
    assert any("no direction" in note for note in nothing.notes)
    all_of_it = Continued("base", "", (), "input", ({"a": {"inputs": 7, "of": 7}},))
    assert any("cannot change" in note for note in all_of_it.notes)
    assert Aligner(continue_from=str(base), **GO_ON).fit(later, ids).notes == ()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"dim": 4}, "dim=4, expected no dim beside continue_from"),
        ({"adapter": "mlp"}, "adapter='mlp', expected no adapter beside continue_from"),
        ({"objective": "umurl"}, "encoder of its own"),
    ],
)
def test_settings_that_the_model_has_decided_are_refused(base, settings, words):
    later, ids = pairs("ab", 4, seed=2)
    with pytest.raises(UsageError, match=words):
        Aligner(continue_from=str(base), **(GO_ON | settings)).fit(later, ids)


def test_data_that_do_not_meet_the_model_are_refused(base):
    later, ids = pairs("ab", 4, seed=2)
    with pytest.raises(DataError, match="nothing in common"):
        Aligner(continue_from=str(base), **GO_ON).fit({"x": later["a"], "y": later["b"]}, ids)
    with pytest.raises(StateError, match="24, as the model"):
        Aligner(continue_from=str(base), **GO_ON).fit({"a": later["a"][:, :5], "b": later["b"]}, ids)
    apart = {"a": later["a"].copy(), "b": later["b"].copy(), "c": later["b"].copy()}
    apart["c"][:120] = np.nan
    apart["a"][120:], apart["b"][120:] = np.nan, np.nan
    with pytest.raises(DataError, match="shares no instance with one"):
        Aligner(continue_from=str(base), **GO_ON).fit(apart, ids)


def test_a_model_without_moments_can_only_be_gone_on_from_without_protection(base, tmp_path):
    model = Aligner.load(base, device="cpu")
    model.model.members[0].encoder.seen = None
    model.save(tmp_path / "old")
    later, ids = pairs("ab", 4, seed=2)
    with pytest.raises(StateError, match="no moments"):
        Aligner(continue_from=str(tmp_path / "old"), **GO_ON).fit(later, ids)
    Aligner(continue_from=str(tmp_path / "old"), protect="none", **GO_ON).fit(later, ids)


def test_further_components_are_orthogonal_and_the_old_ones_stay():
    draws = np.random.default_rng(0)
    basis = np.linalg.qr(draws.standard_normal((20, 6)))[0] * np.arange(1, 7)
    zeros = np.zeros(20, dtype=np.float32)
    projection = Projection(zeros, zeros + 1, zeros, basis.astype(np.float32))
    np.testing.assert_allclose(axis_lengths(projection), np.arange(1, 7), rtol=1e-5)
    rows = 0.5 * draws.standard_normal((50, 9)) @ draws.standard_normal((9, 20))
    dataset = dataset_from_arrays({"a": rows, "b": rows}, None, None)
    wider = extend(projection, dataset, 0, np.arange(50), ridge=0.1, processes=SINGLE_PROCESS)
    assert wider.components == 6 + 9
    np.testing.assert_array_equal(wider.basis[:, :6], projection.basis)
    np.testing.assert_allclose(wider.basis[:, :6].T @ wider.basis[:, 6:], 0, atol=1e-5)
    # Rows that the old components hold whole are nothing in the new ones; the new rows are held whole.
    old_rows = draws.standard_normal((5, 6)) @ basis.T
    np.testing.assert_allclose(wider.scores(old_rows.astype(np.float32))[:, 6:], 0, atol=1e-4)
    unit = np.linalg.qr(wider.basis.astype(np.float64))[0]
    np.testing.assert_allclose(rows @ unit @ unit.T, rows, atol=2e-3)
