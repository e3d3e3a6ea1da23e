"""What any version of pmrl wrote is read for ever, and says the same."""

import json
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pytest

from pmrl_cli.aligner import Aligner
from pmrl_cli.errors import StateError
from pmrl_cli.files.join.dataset import read_dataset

ARCHIVES = sorted(path for path in Path(__file__).parent.iterdir() if (path / "model").is_dir())


@pytest.fixture(params=ARCHIVES, ids=lambda path: path.name)
def archive(request):
    return request.param


def streamed(folder):
    with pa.OSFile(str(folder / "aligned.arrows")) as file:
        table = pa.ipc.open_stream(file).read_all()
    return {name: np.stack(table[name].to_numpy(zero_copy_only=False)) for name in table.column_names if name != "id"}


def test_each_version_is_there(archive):
    for folder in archive.iterdir():
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        assert f"v{manifest['format_version']}" == archive.name


def test_the_model_still_maps_the_store_to_what_was_exported(archive):
    store = read_dataset([str(archive / "store")])
    aligned = Aligner.load(archive / "model", device="cpu").transform(store)
    row = {instance: index for index, instance in enumerate(store.ids.to_pylist())}
    for kind in ("parquet", "h5", "npy"):
        export = read_dataset([str(archive / kind)])
        order = [row[instance] for instance in export.ids.to_pylist()]
        assert export.names == tuple(aligned)
        for features in export.modalities:
            np.testing.assert_allclose(features.read(slice(None)), aligned[features.name][order], atol=1e-5)


def test_the_stream_and_the_fused_vectors_are_those_of_the_model(archive):
    store = read_dataset([str(archive / "store")])
    aligner = Aligner.load(archive / "model", device="cpu")
    expected = {**aligner.transform(store), "fused": aligner.fuse(store)}
    found = streamed(archive / "arrow")
    assert found.keys() == expected.keys()
    for name, vectors in expected.items():
        np.testing.assert_allclose(found[name], vectors, atol=1e-5)
    np.testing.assert_allclose(np.load(archive / "npy" / "fused.npy"), expected["fused"], atol=1e-5)
    with h5py.File(archive / "h5" / "fused.h5") as file:
        np.testing.assert_allclose(file["embedding"][:], expected["fused"], atol=1e-5)


def test_a_model_that_was_read_can_be_written_again(archive, tmp_path):
    aligner = Aligner.load(archive / "model", device="cpu")
    again = Aligner.load(aligner.save(tmp_path / "again"), device="cpu")
    store = read_dataset([str(archive / "store")])
    np.testing.assert_array_equal(again.fuse(store), aligner.fuse(store))


def test_a_version_still_to_come_is_refused_by_number(archive, tmp_path):
    manifest = json.loads((archive / "model" / "manifest.json").read_text(encoding="utf-8"))
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "format_version": 99}), encoding="utf-8")
    with pytest.raises(StateError, match="format version 99, expected 2 or older"):
        Aligner.load(tmp_path)
