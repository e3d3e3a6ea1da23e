"""The STORE: what is ingested is what opens, whole or not at all, the same bytes each time."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pmrl_cli.data.read_options import ReadOptions
from pmrl_cli.errors import DataError, PmrlError, ResourceError, StateError, UsageError
from pmrl_cli.files.artifacts.store import ingest_store
from pmrl_cli.files.durable.npy import MemoryRows, NpyWriter, digest_rows
from pmrl_cli.files.formats.store import open_store
from pmrl_cli.files.join import fill
from pmrl_cli.files.join.dataset import read_dataset


def vectors(rows, dim, start=1, dtype=np.float32):
    return np.arange(start, start + rows * dim, dtype=dtype).reshape(rows, dim)


def mixed(make):
    """Two modalities that share b, c and d, of two types, with a missing vector and a side table."""
    image = vectors(4, 3, dtype=np.float16)
    text = vectors(4, 2)
    text[0] = np.nan
    return [
        make.h5("image.h5", {"features": image, "ids": ["a", "b", "c", "d"]}),
        make.h5("text.h5", {"features": text, "ids": ["d", "c", "b", "e"]}),
        make.h5("audio.h5", {"features": vectors(3, 5), "ids": ["d", "a", "e"]}),
        make.parquet("labels.parquet", {"id": ["a", "d"], "label": ["x", "y"]}),
    ]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("join", ["inner", "outer"])
def test_a_store_opens_as_what_was_read(make, tmp_path, join):
    files = mixed(make) if join == "outer" else make.two()
    read = read_dataset(files, ReadOptions(join=join))
    ingest_store(files, tmp_path / "store", ReadOptions(join=join))
    opened = read_dataset([str(tmp_path / "store")])
    assert opened.ids.equals(read.ids)
    assert opened.names == read.names
    assert np.array_equal(opened.present, read.present)
    assert {key: value.to_pylist() for key, value in opened.columns.items()} == {
        key: value.to_pylist() for key, value in read.columns.items()
    }
    for ours, theirs in zip(opened.modalities, read.modalities, strict=True):
        assert isinstance(ours.array, np.memmap)
        assert ours.array.dtype == theirs.array.dtype
        assert np.array_equal(ours.array, theirs.array)
        assert ours.digest == theirs.digest


def test_the_same_input_gives_the_same_bytes_and_no_path(make, tmp_path):
    files = mixed(make)
    for name in ("one", "two"):
        ingest_store(files, tmp_path / name, ReadOptions(join="outer"))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert str(tmp_path) not in (tmp_path / "one" / "manifest.json").read_text()


def test_a_store_can_be_joined_with_other_files(make, tmp_path):
    ingest_store(mixed(make), tmp_path / "store", ReadOptions(join="outer"))
    extra = make.h5("extra.h5", {"features": vectors(3, 2, 50), "ids": ["d", "b", "a"]})
    data = read_dataset([str(tmp_path / "store"), extra], ReadOptions(join="outer"))
    again = read_dataset([*mixed(make), extra], ReadOptions(join="outer"))
    row = {i: n for n, i in enumerate(again.ids.to_pylist())}
    order = [row[i] for i in data.ids.to_pylist()]
    assert np.array_equal(data.present, again.present[order])
    for ours, theirs in zip(data.modalities, again.modalities, strict=True):
        assert np.array_equal(ours.array, theirs.array[order])
    assert data.columns["label"].to_pylist() == again.columns["label"].take(order).to_pylist()


def test_bfloat16_stays_bfloat16(make, tmp_path):
    bits = np.arange(16000, 16006, dtype=np.uint16).reshape(3, 2)
    files = [make.bfloat16(f"{name}.safetensors", bits) for name in ("x", "y")]
    manifest = ingest_store(files, tmp_path / "store")
    assert [entry["dtype"] for entry in manifest["modalities"]] == ["bfloat16", "bfloat16"]
    opened = open_store(tmp_path / "store").modalities[0]
    assert opened.bfloat16
    assert opened.array.tolist() == [[16000, 16001], [16002, 16003], [16004, 16005]]


def test_a_failure_leaves_the_old_store_and_no_temporary(make, tmp_path):
    store = tmp_path / "out" / "store"
    ingest_store(make.two(), store)
    before = contents(store)
    zero = make.h5("zero.h5", {"features": np.zeros((4, 2)), "ids": ["i0", "i1", "i2", "i3"]})
    with pytest.raises(DataError):
        ingest_store([*make.two(), zero], store)
    assert contents(store) == before
    assert [path.name for path in store.parent.iterdir()] == ["store"]


def test_what_pmrl_did_not_write_is_not_replaced(make, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(UsageError, match="output exists"):
        ingest_store(make.two(), tmp_path / "mine")
    ingest_store(make.two(), tmp_path / "store")
    with pytest.raises(UsageError, match="output is an input"):
        ingest_store([str(tmp_path / "store"), *make.two()], tmp_path / "store")


def test_names_that_cannot_be_files_are_refused(make, tmp_path):
    odd = make.h5("a b.h5", {"features": vectors(4, 2), "ids": ["i0", "i1", "i2", "i3"]})
    with pytest.raises(DataError, match=r"modality name cannot be a file name: .*a b.h5:/features: 'a b'.*name=path"):
        ingest_store([odd, *make.two()], tmp_path / "store")
    ingest_store([f"ab={odd}", *make.two()], tmp_path / "store")
    assert open_store(tmp_path / "store").names == ("ab", "image", "text")


def damage_size(store):
    (store / "image.npy").write_bytes((store / "image.npy").read_bytes()[:-4])


def damage_shape(store):
    np.save(store / "image.npy", vectors(4, 4))


def damage_presence(store):
    np.save(store / "present.npy", np.ones((4, 1), bool))


def damage_manifest(store):
    (store / "manifest.json").write_text('{"format": "pmrl.store", "format_version": 1}')


def lose_ids(store):
    (store / "ids.parquet").unlink()


@pytest.mark.parametrize("damage", [damage_size, damage_shape, damage_presence, damage_manifest, lose_ids])
def test_a_damaged_store_is_refused(make, tmp_path, damage):
    ingest_store(make.two(), tmp_path / "store")
    damage(tmp_path / "store")
    with pytest.raises((DataError, StateError), match="store"):
        open_store(tmp_path / "store")


def test_a_newer_store_names_both_versions(make, tmp_path):
    ingest_store(make.two(), tmp_path / "store")
    manifest = json.loads((tmp_path / "store" / "manifest.json").read_text())
    (tmp_path / "store" / "manifest.json").write_text(json.dumps({**manifest, "format_version": 3}))
    with pytest.raises(StateError, match="format version 3, expected 2 or older"):
        open_store(tmp_path / "store")


@settings(deadline=None, max_examples=50)
@given(
    rows=st.integers(1, 12),
    dim=st.integers(1, 3),
    dtype=st.sampled_from(["<f2", "<f4", "<u2"]),
    data=st.data(),
)
def test_rows_written_in_any_order_are_the_array(tmp_path_factory, rows, dim, dtype, data):
    array = vectors(rows, dim, dtype=dtype)
    order = np.array(data.draw(st.permutations(range(rows))))
    cut = data.draw(st.integers(0, rows))
    keep = np.array(data.draw(st.lists(st.booleans(), min_size=rows, max_size=rows)))
    path = tmp_path_factory.mktemp("npy") / "a.npy"
    memory = MemoryRows(dtype, rows, dim)
    with NpyWriter(path, dtype, rows, dim) as file:
        for store in (file, memory):
            store.put(order[:cut], array[order[:cut]])
            store.put(order[cut:], array[order[cut:]])
        assert np.array_equal(np.load(path), array)
        for store in (file, memory):
            store.shrink(keep)
        assert digest_rows(file) == digest_rows(memory)
    assert np.array_equal(np.load(path), array[keep])
    assert np.array_equal(memory.array, array[keep])
    assert path.stat().st_size == np.load(path, mmap_mode="r").offset + array[keep].nbytes if keep.any() else True


def test_labels_can_be_added_to_a_store(make, tmp_path):
    ingest_store(make.two(), tmp_path / "store")
    table = make.parquet("labels.parquet", {"id": ["i2"], "label": ["x"]})
    assert read_dataset([str(tmp_path / "store")], labels=Path(table)).columns["label"].to_pylist() == [
        None,
        None,
        "x",
        None,
    ]


def test_a_store_keeps_the_names_of_its_modalities(make, tmp_path):
    ingest_store(make.two(), tmp_path / "store")
    with pytest.raises(
        UsageError, match=r"a store names its own modalities: .*: the name 'x', expected the path alone"
    ):
        read_dataset([f"x={tmp_path / 'store'}"])


def test_an_instance_set_that_bad_rows_empty_is_refused(make):
    zero = make.h5("zero.h5", {"features": np.zeros((4, 2)), "ids": ["i0", "i1", "i2", "i3"]})
    with pytest.raises(DataError, match="no instance left: 4 instances joined"):
        read_dataset([zero, *make.two()], on_bad="drop")


def test_too_little_disk_is_reported_before_anything_is_written(make, tmp_path, monkeypatch):

    class Usage:
        free = 10

    monkeypatch.setattr("shutil.disk_usage", lambda folder: Usage)
    with pytest.raises(ResourceError, match="not enough disk"):
        ingest_store(make.two(), tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.fixture
def side_by_side(monkeypatch):
    monkeypatch.setattr(fill, "SIDE_BY_SIDE", 0)
    monkeypatch.setattr(fill.os, "cpu_count", lambda: 3)


def test_modalities_streamed_side_by_side_give_the_same_bytes(make, tmp_path, request):
    files = mixed(make)
    ingest_store(files, tmp_path / "one")
    request.getfixturevalue("side_by_side")
    ingest_store(files, tmp_path / "three")
    assert contents(tmp_path / "one") == contents(tmp_path / "three")


@pytest.mark.usefixtures("side_by_side")
def test_bad_rows_of_all_files_are_reported_together_in_the_order_of_files(make, tmp_path):
    image, text = vectors(4, 3), vectors(4, 2)
    image[1], text[2] = np.inf, 0
    files = [
        make.h5("text.h5", {"features": text, "ids": ["a", "b", "c", "d"]}),
        make.h5("image.h5", {"features": image, "ids": ["a", "b", "c", "d"]}),
    ]
    with pytest.raises(PmrlError) as caught:
        ingest_store(files, tmp_path / "store")
    errors = [caught.value, *caught.value.more]
    assert [Path(error.at.file).name for error in errors] == ["image.h5", "text.h5"]
    assert not (tmp_path / "store").exists()


@pytest.mark.usefixtures("side_by_side")
def test_a_full_disk_under_one_of_several_streams_ends_all(make, tmp_path, monkeypatch):
    write, failed = NpyWriter.write_rows, []

    def fails(self, start, block):
        if self.path.name == "text.npy":
            failed.append(start)
            raise OSError(28, "No space left on device")
        write(self, start, block)

    monkeypatch.setattr(NpyWriter, "write_rows", fails)
    with pytest.raises(ResourceError, match="No space left"):
        ingest_store(mixed(make), tmp_path / "store")
    assert failed
    assert [path.name for path in tmp_path.iterdir() if "store" in path.name] == []
