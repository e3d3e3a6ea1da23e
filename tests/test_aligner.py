"""The Python face: what is saved is what was fitted, and what does not fit the model is refused."""

import json
import pickle  # noqa: TID251 - as joblib and multiprocessing do with estimators

import numpy as np
import pytest

from pmrl_cli import Aligner
from pmrl_cli.data import dataset
from pmrl_cli.data.arrays import dataset_from_arrays
from pmrl_cli.data.shards import shard_rows
from pmrl_cli.errors import DataError, StateError, UsageError
from pmrl_cli.fusion import fuse
from pmrl_cli.spectrum import spectrum


def features(n=200, seed=0):
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(n, 5))
    arrays = {
        name: (latent @ rng.normal(size=(5, d)) + 0.3 * rng.normal(size=(n, d))).astype(np.float32)
        for name, d in (("audio", 9), ("image", 12), ("text", 7))
    }
    arrays["text"][::7] = np.nan
    return arrays


@pytest.fixture(scope="module")
def aligner():
    return Aligner(steps=20, dropout=0.0, seed=0).fit(features())


def test_embeddings_are_unit_where_present_and_nan_where_missing(aligner):
    embeddings = aligner.transform(features())
    assert {name: e.shape for name, e in embeddings.items()} == dict.fromkeys(features(), (200, aligner.dim))
    np.testing.assert_allclose(np.linalg.norm(embeddings["image"], axis=1), 1, atol=1e-5)
    assert (np.isnan(embeddings["text"]).all(1) == (np.arange(200) % 7 == 0)).all()


def test_partial_input_gives_the_same_embeddings_as_whole(aligner):
    whole = aligner.transform(features())
    part = aligner.transform({"text": features()["text"]})
    np.testing.assert_allclose(part["text"], whole["text"], atol=1e-6)


def test_rows_one_by_one_give_the_same_embeddings_as_all(aligner):
    whole = aligner.transform(features())
    for row in range(8):
        one = aligner.transform({name: array[row : row + 1] for name, array in features().items()})
        for name, vectors in one.items():
            np.testing.assert_allclose(vectors, whole[name][row : row + 1], atol=1e-5)


def test_a_name_that_holds_one_of_the_model_is_asked_about(aligner):
    given = {"x_text": features()["text"], "y.audio": features()["audio"]}
    with pytest.raises(StateError, match="text=FILE"):
        aligner.transform(given)


def test_what_embedded_one_row_can_be_pickled(aligner):
    one = {name: array[:1] for name, array in features().items()}
    expected = aligner.transform(one)
    again = pickle.loads(pickle.dumps(aligner)).transform(one)
    for name, vectors in expected.items():
        np.testing.assert_array_equal(again[name], vectors)


def test_the_card_says_whether_anything_was_trained(aligner):
    assert "these recipes were trained" in aligner.texts["README.md"]
    card = Aligner(fast=True, seed=0).fit(features()).texts["README.md"]
    assert "nothing was trained (* chosen)" in card
    assert "AdamW" not in card


def test_the_card_says_what_chose_where_retrieval_did_not():
    card = Aligner(objective="decalign", steps=2, adapter="linear", seed=0).fit(features()).texts["README.md"]
    assert "each stopped where the validation loss was least" in card
    assert "had the least validation loss on linear components" in card
    card = Aligner(objective="mvae", steps=2, adapter="linear", seed=0).fit(features()).texts["README.md"]
    assert "each stopped where the method's own criterion was best" in card
    assert "was best by the method's own criterion; such models stand alone" in card
    assert "ranked the validation instances best" not in card


def test_no_rows_give_no_vectors(aligner):
    none = {name: array[:0] for name, array in features().items()}
    assert {name: e.shape for name, e in aligner.transform(none).items()} == dict.fromkeys(none, (0, aligner.dim))
    with pytest.raises(StateError, match="dimension differs"):
        aligner.transform({"text": np.zeros((0, 3), dtype=np.float32)})


def test_transform_is_bit_for_bit_what_is_embedded_in_blocks(aligner, monkeypatch):
    data = dataset_from_arrays(features(), None, None)
    monkeypatch.setattr(dataset, "BLOCK_BYTES", 4 * sum(data.dims) * 64)
    blocks = np.concatenate([block.embeddings for block in aligner.embed(data)])
    for m, (name, vectors) in enumerate(aligner.transform(data).items()):
        here = data.present[:, m]
        np.testing.assert_array_equal(vectors[here], blocks[here, m], err_msg=name)


@pytest.mark.parametrize("block_rows", [1000, 64, 7])
@pytest.mark.parametrize("of", [2, 3, 41])
def test_slices_are_embedded_bit_for_bit_as_they_are_among_all(aligner, monkeypatch, block_rows, of):
    data = dataset_from_arrays(features(), None, None)
    monkeypatch.setattr(dataset, "BLOCK_BYTES", 4 * sum(data.dims) * block_rows)
    whole = list(aligner.embed(data))
    parts = [block for index in range(of) for block in aligner.embed(data, shard_rows(len(data), index, of))]
    for name in ("embeddings", "fused", "present"):
        mine, theirs = (np.concatenate([getattr(block, name) for block in blocks]) for blocks in (parts, whole))
        np.testing.assert_array_equal(mine, theirs)
    assert [i for block in parts for i in block.ids.to_pylist()] == data.ids.to_pylist()


def test_fusion_is_of_what_is_present_by_the_leading_direction_or_weighted(aligner):
    import torch

    embeddings = aligner.transform(features())
    stacked = torch.from_numpy(np.stack([embeddings[name] for name in sorted(embeddings)], axis=1))
    present = ~torch.isnan(stacked).any(2)
    expected = spectrum(torch.nan_to_num(stacked), present, sign_aware=True).leading_direction
    np.testing.assert_allclose(aligner.fuse(features()), expected.numpy(), atol=1e-5)
    weighted = fuse(torch.nan_to_num(stacked), present, "weighted")
    assert (weighted - expected).abs().max() > 1e-3
    np.testing.assert_allclose(aligner.fuse(features(), fusion="weighted"), weighted.numpy(), atol=1e-5)
    with pytest.raises(UsageError, match="unknown fusion: 'mean', expected one of leading, weighted"):
        aligner.fuse(features(), fusion="mean")


def test_a_loaded_model_embeds_and_saves_the_same_bytes(aligner, tmp_path):
    aligner.save(tmp_path / "a")
    loaded = Aligner.load(tmp_path / "a")
    for name, embedding in aligner.transform(features()).items():
        np.testing.assert_array_equal(loaded.transform(features())[name], embedding)
    loaded.save(tmp_path / "b")
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name
    assert loaded.get_params() == aligner.get_params()


def test_training_brought_the_modalities_together(aligner):
    embeddings = aligner.transform(features())
    cosines = (embeddings["audio"] * embeddings["image"]).sum(1)
    shuffled = (embeddings["audio"] * np.roll(embeddings["image"], 1, axis=0)).sum(1)
    assert cosines.mean() > shuffled.mean() + 0.5


def test_parameters_follow_scikit_learn():
    aligner = Aligner(dim=8)
    assert aligner.set_params(dim=16, seed=3).get_params()["dim"] == 16
    assert Aligner(**aligner.get_params()).get_params() == aligner.get_params()
    with pytest.raises(UsageError, match="depth"):
        aligner.set_params(depth=2)
    with pytest.raises(UsageError, match="adapter out of range: 'tree', expected one of auto, linear, mlp, kernel"):
        Aligner(adapter="tree")


def test_scikit_learn_clones_it_unfitted(aligner):
    from sklearn.base import clone

    copy = clone(Aligner(dim=3, objective_settings={"spectrum_weight": 0.5}))
    assert repr(copy) == "Aligner(objective_settings={'spectrum_weight': 0.5}, dim=3)"
    with pytest.raises(UsageError, match="not fitted"):
        clone(aligner).transform(features())


def test_torch_arrow_and_lists_are_taken_as_numpy_is(aligner):
    import pyarrow as pa
    import torch

    plain = features()["text"]
    expected = aligner.transform({"text": plain})["text"]
    rows = [None if np.isnan(row).all() else row.tolist() for row in plain]
    arrow = pa.array(rows, pa.list_(pa.float32(), plain.shape[1]))
    for given in (torch.from_numpy(plain), arrow, pa.chunked_array([arrow[:50], arrow[50:]]), plain.tolist()):
        np.testing.assert_allclose(aligner.transform({"text": given})["text"], expected, atol=1e-6)
    rough = aligner.transform({"text": torch.from_numpy(plain).bfloat16()})["text"]
    assert np.nanmin((rough * expected).sum(1)) > 0.999


def test_what_the_model_does_not_know_is_refused_by_name(aligner):
    with pytest.raises(StateError, match="touch.*expected some of audio, image, text"):
        aligner.transform({"touch": np.ones((3, 4), dtype=np.float32)})
    with pytest.raises(StateError, match="'audio' with 4 columns, expected 9"):
        aligner.transform({"audio": np.ones((3, 4), dtype=np.float32)})
    with pytest.raises(UsageError, match="not fitted"):
        Aligner().transform(features())


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "seen.safetensors"])
def test_a_changed_byte_is_found_on_loading(aligner, tmp_path, name):
    path = aligner.save(tmp_path / "m") / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(StateError, match=f"changed since it was written.*{name}"):
        Aligner.load(tmp_path / "m")


def test_other_folders_and_newer_formats_are_refused(aligner, tmp_path):
    with pytest.raises(DataError, match="not a model"):
        Aligner.load(tmp_path)
    manifest = aligner.save(tmp_path / "m") / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format_version": 3}))
    with pytest.raises(StateError, match="format version 3, expected 2 or older"):
        Aligner.load(tmp_path / "m")


def test_unseen_instances_are_those_no_part_of_the_fit_touched():
    from pmrl_cli.data.arrays import dataset_from_arrays

    data = features()
    ids = [f"i{i}" for i in range(200)]
    dataset = dataset_from_arrays(data, ids)
    aligner = Aligner(steps=0, adapter="linear", test=0.25, refit=False).fit(dataset)
    parts = {split: aligner.rows(dataset, split)[0] for split in ("train", "validation", "test", "all")}
    assert sorted(np.concatenate([parts["train"], parts["validation"], parts["test"]])) == list(range(200))
    assert (aligner.rows(dataset, "auto")[0] == parts["test"]).all()
    fresh = dataset_from_arrays(data, [f"new{i}" for i in range(200)])
    assert len(aligner.rows(fresh, "auto")[0]) == 200
    untested = Aligner(steps=0, adapter="linear", test=0.0, refit=False).fit(dataset)
    rows, sentence = untested.rows(dataset, "auto")
    assert (rows == untested.rows(dataset, "validation")[0]).all()
    assert "optimistic" in sentence
    with pytest.raises(DataError, match="no test instance"):
        untested.rows(dataset, "test")


def test_search_finds_the_nearest_by_cosine_and_marks_queries_without_a_vector(aligner):
    queries, gallery = features(), {"image": features()["image"][50:]}
    rows, scores = aligner.search(queries, gallery, 4, source="text")
    text, image = aligner.transform(queries)["text"], aligner.transform(gallery)["image"]
    asks = ~np.isnan(text).any(1)
    assert (rows[~asks] == -1).all()
    assert np.isnan(scores[~asks]).all()
    np.testing.assert_array_equal(rows[asks], np.argsort(-(text[asks] @ image.T), axis=1, kind="stable")[:, :4])
    np.testing.assert_allclose(scores[asks][:, 0], (text[asks] @ image.T).max(1), atol=1e-6)
