"""Ids that name several rows of a modality: refused, or paired, averaged, or the first taken, as asked."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pmrl_cli.aligner import Aligner
from pmrl_cli.cli.main import command_line
from pmrl_cli.data.join import join_ids
from pmrl_cli.data.repeated_ids import join_repeated
from pmrl_cli.data.split import TEST, SplitRule, split_instances
from pmrl_cli.errors import DataError, UsageError
from pmrl_cli.files.artifacts.store import ingest_store
from pmrl_cli.files.join.dataset import read_dataset

generator = np.random.default_rng(0)
IMAGES = {f"im{i}": generator.normal(size=4).astype(np.float32) for i in range(40)}
CAPTIONS = [(f"im{i}", generator.normal(size=3).astype(np.float32)) for i in generator.integers(3, 43, size=120)]


@pytest.fixture
def files(tmp_path):
    """Images once; captions in any order, some of images that are not there; sides of images."""

    def write(name, ids, vectors, **columns):
        path = tmp_path / f"{name}.parquet"
        pq.write_table(pa.table({"id": ids, **columns, "features": pa.array(list(vectors))}), path)
        return str(path)

    pq.write_table(pa.table({"id": list(IMAGES), "label": [f"l{i}" for i in IMAGES]}), tmp_path / "side.parquet")
    return [
        write("image", list(IMAGES), list(IMAGES.values())),
        write("text", [i for i, _ in CAPTIONS], [v for _, v in CAPTIONS]),
    ]


def of_image(name):
    return [v for i, v in CAPTIONS if i == name]


def test_repeats_are_refused_and_the_option_named(files):
    with pytest.raises(DataError, match=r"duplicate id.*--on-repeat pair, mean or first"):
        read_dataset(files)


@pytest.mark.parametrize("max_memory", [None, 1])
@pytest.mark.parametrize("join", ["inner", "outer"])
def test_pairs_are_instances_that_share_the_row_of_the_other_modality(files, tmp_path, join, max_memory):
    data = read_dataset(files, on_repeat="pair", join=join, max_memory=max_memory, labels=tmp_path / "side.parquet")
    expected = {}
    for name in IMAGES:
        for k, vector in enumerate(of_image(name)):
            expected[name if len(of_image(name)) == 1 else f"{name}#{k}"] = (IMAGES[name], vector, f"l{name}")
    assert set(data.ids.to_pylist()) == set(expected)
    every = np.arange(len(data))
    image, text = (features.read(every) for features in data.modalities)
    for row, name in enumerate(data.ids.to_pylist()):
        np.testing.assert_array_equal(image[row], expected[name][0])
        np.testing.assert_array_equal(text[row], expected[name][1])
        assert data.columns["label"][row].as_py() == expected[name][2]
    used = {name.partition("#")[0] for name in expected}
    assert len(data.modalities[0].array) == len(used)  # each image once, however many captions it has
    part = data.part(slice(5, 9))
    np.testing.assert_array_equal(part.modalities[0].read(slice(0, 4)), image[5:9])
    parts = split_instances(data, SplitRule(0, 0.2, 0.3))
    sides = {}
    for name, side in zip(data.ids.to_pylist(), parts == TEST, strict=True):
        assert sides.setdefault(name.partition("#")[0], side) == side


def test_an_instance_without_the_shared_modality_lacks_it(files):
    data = read_dataset(files, on_repeat="pair", min_modalities=1)
    lone = [i for i, name in enumerate(data.ids.to_pylist()) if name.partition("#")[0] not in IMAGES]
    assert lone
    assert not data.present[lone, 0].any()
    assert not data.modalities[0].read(np.array(lone)).any()


@pytest.mark.parametrize("max_memory", [None, 1])
@pytest.mark.parametrize("how", ["mean", "first"])
def test_one_instance_for_each_id(files, how, max_memory):
    data = read_dataset(files, on_repeat=how, max_memory=max_memory)
    text = data.modalities[1].read(np.arange(len(data)))
    for row, name in enumerate(data.ids.to_pylist()):
        rows = of_image(name)
        expected = np.mean(rows, axis=0) if how == "mean" else rows[0]
        np.testing.assert_allclose(text[row], expected, rtol=0, atol=1e-6 if how == "mean" else 0)
    assert set(data.ids.to_pylist()) == set(IMAGES) & {i for i, _ in CAPTIONS}


def test_a_mean_is_over_the_rows_that_are_there(tmp_path):
    values = np.array([[1.0, 2.0], [np.nan, np.nan], [3.0, 6.0], [np.nan, np.nan]], np.float16)
    table = pa.table({"id": ["a", "a", "a", "b"], "features": pa.array(list(values), pa.list_(pa.float16()))})
    pq.write_table(table, tmp_path / "x.parquet")
    pq.write_table(pa.table({"id": ["a", "b"], "features": pa.array([[1.0], [2.0]])}), tmp_path / "y.parquet")
    files = [str(tmp_path / "x.parquet"), str(tmp_path / "y.parquet")]
    data = read_dataset(files, on_repeat="mean", min_modalities=1)
    assert data.modalities[0].read(slice(0, 1)).tolist() == [[2.0, 4.0]]
    assert data.present.tolist() == [[True, True], [False, True]]


def test_dropping_instances_keeps_the_others_at_their_rows(files, tmp_path):
    rows = pq.read_table(files[1])
    vectors = [v for _, v in CAPTIONS]
    vectors[7] = np.array([np.inf, 1, 1], np.float32)
    table = rows.set_column(1, "features", pa.array(vectors))
    pq.write_table(table, tmp_path / "text.parquet")
    data = read_dataset(files, on_repeat="pair", on_bad="drop")
    image = data.modalities[0].read(np.arange(len(data)))
    for row, name in enumerate(data.ids.to_pylist()):
        np.testing.assert_array_equal(image[row], IMAGES[name.partition("#")[0]])


def test_rows_of_two_modalities_that_repeat_one_id_are_not_paired():
    ids = [pa.array(list(text), pa.large_string()) for text in ("aab", "aabb")]
    with pytest.raises(DataError, match=r"id 'a' names rows of two modalities \(1 such ids\)"):
        join_repeated(ids, "outer", 2, "pair")


def test_without_repeats_all_ways_are_the_plain_join():
    ids = [pa.array(list(text), pa.large_string()) for text in ("abcd", "cbx")]
    for how in ("pair", "mean", "first"):
        found, plain = join_repeated(ids, "outer", 2, how), join_ids(ids, "outer", 2)
        assert found.ids.equals(plain.ids)
        assert found.present.tolist() == plain.present.tolist()


def test_a_store_holds_a_row_for_each_instance(files, tmp_path):
    with pytest.raises(UsageError, match="give the files and --on-repeat pair to fit"):
        ingest_store(files, tmp_path / "store", on_repeat_pair())
    ingest_store(files, tmp_path / "store", on_repeat_pair("mean"))
    assert len(read_dataset([str(tmp_path / "store")])) == len(read_dataset(files, on_repeat="mean"))


def on_repeat_pair(how="pair"):
    from pmrl_cli.data.read_options import ReadOptions

    return ReadOptions(on_repeat=how)


def test_inspect_and_evaluate_take_the_option(files, capsys):
    command_line(["inspect", *files, "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["problems"][0]["message"].startswith("duplicate id")
    command_line(["inspect", *files, "--json", "--on-repeat", "pair"], standalone_mode=False)
    found = json.loads(capsys.readouterr().out)
    assert (found["problems"], found["instances"]) == ([], sum(len(of_image(name)) for name in IMAGES))


def test_what_trained_in_pairs_is_known_by_the_ids_of_the_files_and_the_other_way_round(files):
    ways = {how: read_dataset(files, on_repeat=how) for how in ("pair", "first")}
    for fitted, evaluated in (("pair", "first"), ("first", "pair")):
        aligner = Aligner(fast=True, seed=1, device="cpu").fit(ways[fitted])
        known = {}
        for how, data in ways.items():
            rows, _ = aligner.rows(data, "test")
            unseen = {i.partition("#")[0] for i in data.ids.take(rows).to_pylist()}
            known[how] = {i.partition("#")[0] for i in data.ids.to_pylist()} - unseen
        assert known[evaluated] == known[fitted]
