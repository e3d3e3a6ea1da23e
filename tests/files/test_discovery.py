"""Discovery: explicit wins, names decide, doubt is refused with the flag to type."""

import json
import os
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pytest

from pmrl_cli.data.read_options import ReadOptions
from pmrl_cli.errors import DataError, PmrlError
from pmrl_cli.files.join.dataset import read_dataset
from pmrl_cli.files.join.discovery import discover

IDS = ["a", "b", "c", "d"]
X = np.arange(1, 13, dtype=np.float32).reshape(4, 3)
Y = X[:, :2] * 10


def raise_first(error):
    raise error


def names(*files, **options):
    return [
        modality.name
        for modality in discover([str(file) for file in files], raise_first, ReadOptions(**options)).modalities
    ]


def refusal(*files, **options):
    with pytest.raises(PmrlError) as caught:
        read_dataset([str(file) for file in files], **options)
    return str(caught.value)


def test_a_listed_name_decides_and_is_noted(make):
    x = make.h5("x.h5", {"features": X, "other": X + 1, "umap": Y, "ids": IDS})
    plan = discover([x, make.h5("y.h5", {"features": Y, "ids": IDS})], raise_first)
    assert plan.modalities[0].shards[0].name == "/features"
    assert "x.h5: took /features by its name, not /other." in plan.notes


def test_doubt_lists_the_candidates_and_the_flag(make):
    x = make.h5("x.h5", {"one": X, "two": Y, "ids": IDS})
    y = make.h5("y.h5", {"features": Y, "ids": IDS})
    message = refusal(x, y)
    assert "several arrays could be the features" in message
    assert "/one (4 x 3 float32), /two (4 x 2 float32)" in message
    assert f"Type {x}:/one, or --feature-column /one." in message
    assert names(f"{x}:/one", y) == ["x", "y"]
    assert names(f"p={x}:/one", f"q={x}:/two") == ["p", "q"]
    assert names(f"{x}:/one", f"{x}:/two") == ["one", "two"]


def test_feature_column_switches_the_guess_off(make):
    x = make.h5("x.h5", {"features": X, "deep": X * 2, "ids": IDS})
    y = make.h5("y.h5", {"features": Y, "deep": Y * 2, "ids": IDS})
    data = read_dataset([x, y], feature_column="deep")
    assert np.array_equal(data.modalities[0].array, X * 2)
    assert "no such array" in refusal(x, y, feature_column="absent")


def test_column_of_a_parquet_file(make):
    x = make.parquet("x.parquet", {"id": IDS, "a": list(X), "b": list(X + 1)})
    y = make.h5("y.h5", {"features": Y, "ids": IDS})
    assert np.array_equal(read_dataset([f"{x}#b", y]).modalities[0].array, X + 1)


def test_one_file_with_several_arrays_is_several_modalities(make):
    assert names(make.h5("all.h5", {"image/features": X, "text/features": Y, "ids": IDS})) == ["image", "text"]
    both = make.parquet("both.parquet", {"id": IDS, "image_embedding": list(X), "text_embedding": list(Y)})
    assert names(both) == ["image", "text"]


def test_one_path_need_not_be_in_a_list(make):
    x = make.h5("x.h5", {"one": X, "two": Y, "ids": IDS})
    for path in (str(x), Path(x)):
        assert read_dataset(path).names == ("one", "two")


def test_ids_in_the_group_of_the_array_come_first(make):
    path = make.h5("all.h5", {"p/features": X, "p/ids": ["d", "c", "b", "a"], "q/features": Y, "ids": IDS})
    plan = discover([path], raise_first)
    assert [m.ids.to_pylist() for m in plan.modalities] == [["d", "c", "b", "a"], IDS]


def test_the_id_name_all_files_share_is_preferred(make):
    x = make.h5("x.h5", {"features": X, "id": ["1", "2", "3", "4"], "video_id": IDS})
    y = make.h5("y.h5", {"features": Y, "video_id": IDS})
    assert read_dataset([x, y]).ids.to_pylist() == IDS
    z = make.h5("z.h5", {"features": Y, "id": ["1", "2", "3", "4"], "name": IDS})
    assert read_dataset([x, z]).ids.to_pylist() == ["1", "2", "3", "4"]
    assert "no instance in common" in refusal(x, z, id_column="name")  # x has none, so its usual one
    assert "no ids" in refusal(x, y, id_column="title")


def test_shards_join_in_natural_order(make):
    ids = [f"i{row}" for row in range(12)]
    values = np.arange(1, 25, dtype=np.float32).reshape(12, 2)
    shards = [
        make.parquet(f"s/x-{part:05d}-of-00012.parquet", {"id": [ids[part]], "emb": list(values[part : part + 1])})
        for part in range(12)
    ]
    y = make.h5("y.h5", {"features": values, "ids": ids})
    data = read_dataset([*reversed(shards), y])
    assert data.ids.to_pylist() == ids
    assert np.array_equal(data.modalities[0].array, values)


def test_a_folder_gives_its_direct_files_and_says_what_it_skips(make, tmp_path):
    make.two()
    make.h5("deeper/audio.h5", {"features": X, "ids": ["i0", "i1", "i2", "i3"]})
    (tmp_path / "README.md").write_text("hello")
    data = read_dataset([str(tmp_path)])
    assert data.names == ("image", "text")
    assert any(note.endswith("README.md, deeper/.") for note in data.notes)


def test_an_export_gives_its_modalities_but_not_the_fused(make, tmp_path):
    for name, values in (("image", X), ("text", Y), ("fused", Y)):
        make.parquet(f"out/{name}/part-00000-of-00001.parquet", {"id": IDS, "embedding": list(values)})
    manifest = {"format": "pmrl.export", "format_version": 1, "modalities": {"image": {}, "text": {}}}
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest))
    out = tmp_path / "out"
    assert names(out) == ["image", "text"]
    assert names(out / "image", out / "text") == ["image", "text"]
    assert names(out / "image" / "part-00000-of-00001.parquet", out / "fused") == ["fused", "image"]


def test_side_tables_follow_the_ids(make, tmp_path):
    x, y = make.h5("x.h5", {"features": X, "ids": IDS}), make.h5("y.h5", {"features": Y, "ids": IDS})
    table = make.parquet("labels.parquet", {"id": ["c", "a", "z"], "label": [3, 1, 9]})
    (tmp_path / "more.csv").write_text("id,group\na,g1\nb,g2\n")
    data = read_dataset([x, y, table], labels=tmp_path / "more.csv")
    assert data.columns["label"].to_pylist() == [1, None, 3, None]
    assert data.columns["group"].to_pylist() == ["g1", "g2", None, None]
    make.h5("side.h5", {"ids": IDS, "split": ["train", "test", "test", "train"]})
    assert read_dataset([x, y, str(tmp_path / "side.h5")]).columns["split"].to_pylist()[1] == "test"


def test_a_side_table_may_be_named_and_lie_in_the_folder(make, tmp_path, monkeypatch):
    make.two()
    table = make.parquet("labels.parquet", {"id": ["i1"], "label": [5]})
    monkeypatch.chdir(tmp_path)
    assert read_dataset(["."], labels=Path(table)).columns["label"].to_pylist() == [None, 5, None, None]


def test_csv_ids_keep_their_zeros(make, tmp_path):
    ids = ["007", "7", "07", "70"]
    (tmp_path / "t.csv").write_text("id,label\n07,1\n7,2\n")
    x, y = make.two(4, ids)
    assert read_dataset([x, y], labels=tmp_path / "t.csv").columns["label"].to_pylist() == [None, 2, 1, None]


def test_a_side_table_that_repeats_an_id_or_matches_no_instance_is_refused(make):
    files = make.two()
    assert "duplicate id" in refusal(*files, make.parquet("l.parquet", {"id": ["i0", "i0"], "label": [1, 2]}))
    assert "names none of the instances" in refusal(*files, make.parquet("l.parquet", {"id": ["z"], "label": [1]}))


def test_files_of_the_same_ids_that_look_like_parts_are_named_in_the_refusal(make):
    files = [make.h5(f"run_{part}.h5", {"features": X + part, "ids": IDS}) for part in range(3)]
    said = refusal(*files)
    assert "duplicate id" in said
    advised = said.split("give ")[1].split(" instead.")[0].split()
    assert names(*advised) == ["run_0", "run_1", "run_2"]
    nameless = [make.h5(f"k_{part}.h5", {"features": X + part}) for part in range(3)]
    advised = refusal(*nameless).split("give ")[1].split(" instead.")[0].split()
    assert names(*advised, by_row=True) == ["k_0", "k_1", "k_2"]
    overlapping = make.h5("run_1.h5", {"features": X, "ids": ["d", "e", "f", "g"]})
    assert "modality of its own" not in refusal(files[0], overlapping)


def test_ids_of_two_types_are_refused(make):
    x = make.h5("x.h5", {"features": X, "ids": np.arange(4)})
    y = make.h5("y.h5", {"features": Y, "ids": ["0", "1", "2", "3"]})
    message = refusal(x, y)
    assert f"ids of mixed type: {x}:/ids: integers, expected text as in {y}:/ids." in message


def test_joining_by_row_needs_equal_row_counts_and_no_ids(make):
    x, y = make.h5("x.h5", {"features": X}), make.h5("y.h5", {"features": Y})
    data = read_dataset([x, y])
    assert data.named_by_row
    assert "no file has ids: row i of every file is taken for the same instance." in data.notes
    assert "rows differ in number" in refusal(x, make.h5("z.h5", {"features": Y[:3]}))
    message = refusal(x, make.h5("z.h5", {"features": Y, "ids": IDS}))
    assert "some files have ids and some have none: " in message
    assert "x.h5:/features: no ids" in message


def test_one_file_per_sample_is_refused(make):
    many = [make.h5(f"clip{i}.h5", {"features": np.ones((2 + i % 3, 4), np.float32)}) for i in range(14)]
    assert "one file or group per sample" in refusal(*many)
    numbered = [make.h5(f"n/v_{i:04d}.h5", {"features": np.ones((2 + i % 3, 4), np.float32)}) for i in range(14)]
    assert "one file or group per sample" in refusal(*numbered, make.h5("y.h5", {"features": Y}))
    groups = {f"clip{i}/features": np.ones((2 + i % 3, 4), np.float32) for i in range(14)}
    message = refusal(make.h5("g.h5", groups))
    assert "14 arrays named features, one per instance (2 to 4 x 4)" in message
    assert "Pass --pool mean" in message
    slide = make.h5("slide.h5", {"features": X, "coords": np.ones((4, 2), np.int64)})
    assert "coordinates beside features" in refusal(slide, make.h5("y.h5", {"features": Y}))


def test_every_file_with_a_fault_is_reported(make, tmp_path):
    (tmp_path / "broken.h5").write_bytes(b"not hdf5")
    bad = [
        str(tmp_path / "absent.h5"),
        str(tmp_path / "broken.h5"),
        make.h5("ints.h5", {"features": np.ones((4, 2), np.int32), "ids": IDS}),
        make.h5("twice.h5", {"features": Y, "ids": ["a", "a", "b", "c"]}),
    ]
    problems = []
    plan = discover([*bad, *make.two(4, IDS)], problems.append)
    assert [modality.name for modality in plan.modalities] == ["image", "text"]
    assert [problem.what for problem in problems] == [
        "file cannot be read",
        "file cannot be read",
        "integer features",
        "duplicate id",
    ]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"features": X[0], "ids": IDS}, "no features"),
        ({"features": X[None], "ids": IDS}, "/features (1 x 4 x 3 float32)"),
        ({"features": np.ones((0, 3), np.float32)}, "no rows"),
        ({"features": X.astype(complex)}, "complex128 of shape (4, 3)"),
        ({"features": X > 1}, "bool of shape (4, 3)"),
        ({"features": X.astype(np.uint8)}, "integer features: "),
        ({"features": X, "ids": IDS[:3]}, "ids and rows differ in number: "),
        ({"features": X, "ids": np.array([0.5, 1, 2, 3])}, "neither text nor integers"),
        ({"features": X, "ids": ["a", "", "c", "d"]}, "empty id: "),
        ({"features": X, "ids": [b"a", b"\xff", b"c", b"d"]}, "id is not UTF-8 text: "),
    ],
)
def test_odd_files_are_data_errors_that_say_what_they_hold(make, arrays, message):
    x = make.h5("x.h5", arrays)
    with pytest.raises(DataError) as caught:
        read_dataset([x, make.h5("y.h5", {"features": Y, "ids": IDS})])
    assert message in str(caught.value)
    assert "x.h5" in str(caught.value)


def test_null_ids_are_refused_by_row(make):
    x = make.parquet("x.parquet", {"id": pa.array(["a", None, "c", "d"]), "emb": list(X)})
    assert "missing id: " + x + ":id row 1: null" in refusal(x, make.h5("y.h5", {"features": Y, "ids": IDS}))


def test_fifos_are_refused_before_they_are_opened(make, tmp_path):
    os.mkfifo(tmp_path / "x.h5")
    assert "a FIFO, socket or device" in refusal(tmp_path / "x.h5", *make.two())


def test_one_modality_is_an_error_unless_allowed(make):
    x = make.h5("x.h5", {"features": X, "ids": IDS})
    assert f"too few modalities: {x}: 1 (x), expected at least 2" in refusal(x)
    assert read_dataset([x], min_modalities=1).names == ("x",)


def test_no_overlap_shows_rows_and_ids_of_each(make):
    x = make.h5("x.h5", {"features": X, "ids": [f"img_{i}" for i in range(4)]})
    y = make.h5("y.h5", {"features": Y, "ids": [f"{i}.jpg" for i in range(4)]})
    assert "x 4 rows ('img_0', 'img_1', 'img_2'); y 4 rows ('0.jpg', '1.jpg', '2.jpg')" in refusal(x, y)


def test_soft_links_inside_a_file_are_no_second_array(make):
    x = make.h5("x.h5", {"raw/f": X, "ids": IDS})
    with h5py.File(x, "a") as file:
        file["features"] = h5py.SoftLink("/raw/f")
    assert names(x, make.h5("y.h5", {"features": Y, "ids": IDS})) == ["x", "y"]


def test_folders_without_features_are_refused(make, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "manifest.json").write_text('{"format": "pmrl.model", "format_version": 1}')
    (tmp_path / "notes.rst").write_text("x")
    (tmp_path / "notes.txt").write_text("some words\nand more\n")
    assert "folder holds no feature file: " in refusal(tmp_path / "empty")
    assert "a pmrl.model folder, expected feature files" in refusal(tmp_path / "model")
    assert "unknown kind of file: " in refusal(tmp_path / "notes.rst")
    assert "text without a word and its numbers in each line" in refusal(tmp_path / "notes.txt")


def test_shards_must_be_of_one_width(make):
    shards = [make.h5(f"x_{i:03d}.h5", {"features": X[:, : 2 + i], "ids": [f"{i}{j}" for j in IDS]}) for i in (0, 1)]
    message = refusal(*shards, make.h5("y.h5", {"features": Y, "ids": IDS}))
    assert "shards of modality 'x' differ in columns: " in message
    assert f"{shards[1]}:/features: 3, expected 2 as in {shards[0]}" in message
