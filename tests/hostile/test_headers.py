"""Headers and manifests that lie: safetensors, npz, and the JSON of a folder that says it is a store."""

import json
import os
import struct
import zipfile

import numpy as np
import pytest
from makers import IDS, X, good
from safetensors.numpy import save_file

from pmrl_cli.aligner import Aligner
from pmrl_cli.errors import DataError, PmrlError, PolicyError, UsageError
from pmrl_cli.files.artifacts.states import read_state
from pmrl_cli.files.artifacts.store import ingest_store
from pmrl_cli.files.durable.outputs import check_replaceable
from pmrl_cli.files.formats.probe import probe
from pmrl_cli.files.join.dataset import read_dataset

DATA = X.tobytes()


SIZE = len(DATA)


def entry(offsets=(0, SIZE), dtype="F32", shape=(40, 9)):
    return json.dumps({"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)})


def safetensors(header, data=DATA, length=None):
    raw = header if isinstance(header, bytes) else header.encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


MALFORMED = {
    "longer than anything": safetensors("{}", length=2**63),
    "longer than the file": safetensors("{}", length=10_000),
    "shorter than it is": safetensors(f'{{"emb": {entry()}}}', length=5),
    "no JSON": safetensors("not json"),
    "no object": safetensors("[1, 2]"),
    "not UTF-8": safetensors(b'{"\xff": ' + entry().encode() + b"}"),
    "deep": safetensors("[" * 100_000),
    "overlap": safetensors(f'{{"a": {entry()}, "b": {entry()}}}'),
    "hole": safetensors(f'{{"emb": {entry((8, len(DATA) + 8))}}}', DATA + b"\0" * 8),
    "trailing bytes": safetensors(f'{{"emb": {entry()}}}', DATA + b"more"),
    "cut": safetensors(f'{{"emb": {entry()}}}', DATA[:-1]),
    "shape and bytes differ": safetensors(f'{{"emb": {entry(shape=(40, 8))}}}'),
    "a product that wraps": safetensors(f'{{"emb": {entry(shape=(2**62, 4))}}}'),
    "negative": safetensors(f'{{"emb": {entry(shape=(-40, -9))}}}'),
    "unknown type": safetensors(f'{{"emb": {entry(dtype="PICKLE")}}}'),
    "empty": b"",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_safetensors_are_refused_by_name(tmp_path, name):
    path = tmp_path / "x.safetensors"
    path.write_bytes(MALFORMED[name])
    with pytest.raises(DataError, match=r"x\.safetensors"):
        probe(path)


def test_a_name_that_stands_twice_in_safetensors_is_refused(tmp_path):
    """The library takes the last and says nothing."""
    path = tmp_path / "x.safetensors"
    half = len(DATA) // 2
    path.write_bytes(safetensors(f'{{"e": {entry((0, half), shape=(20, 9))}, "e": {entry((0, len(DATA)))}}}'))
    with pytest.raises(DataError, match="twice"):
        probe(path)


def test_names_in_safetensors_are_no_paths(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors(f'{{"../../etc/passwd": {entry()}}}'))
    np.save(tmp_path / "y.npy", X)
    ingest_store([str(path), str(tmp_path / "y.npy")], tmp_path / "in" / "store")
    written = sorted(file.name for file in (tmp_path / "in" / "store").iterdir())
    assert written == ["ids.parquet", "manifest.json", "present.npy", "x.npy", "y.npy"]


def test_an_npz_member_that_unpacks_a_thousandfold_is_refused(tmp_path):
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("features.npy", "w") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (300_000, 256)}
        np.lib.format.write_array_header_1_0(file, header)
        for _ in range(300):
            file.write(b"\0" * 1_024_000)
    with pytest.raises(PolicyError, match="declared bytes over"):
        probe(path)


MANIFESTS = {
    "deep": "[" * 100_000,
    "digits": '{"format": "pmrl.store", "format_version": 1, "rows": ' + "9" * 100_000 + "}",
    "list": "[]",
    "no entries": '{"format": "pmrl.store", "format_version": 1}',
    "wrong types": '{"format": "pmrl.store", "format_version": 1, "rows": [], "modalities": 3, "ids": 4, "notes": 5}',
    "infinite rows": '{"format": "pmrl.store", "format_version": 1, "rows": Infinity, "modalities": [], "ids": {}}',
    "not UTF-8": b'{"format": "pmrl.store\xff"}',
    "no files": '{"format": "pmrl.store", "format_version": 1, "files": {}}',
    "files that are no list": '{"format": "pmrl.store", "format_version": 1, "files": 3}',
    "a digest that is no text": '{"format": "pmrl.store", "format_version": 1, "files": {"ids.parquet": 3}}',
    "a file elsewhere": '{"format": "pmrl.store", "format_version": 1, "files": {"/etc/passwd": "0"}}',
    "a name that is a path": '{"format": "pmrl.store", "format_version": 1, "rows": 40, "notes": [], "ids": '
    '{"named_by_row": true}, "modalities": [{"name": "../y", "dtype": "float32", "dim": 9, "digest": ""}]}',
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_that_lies_is_refused_by_name(tmp_path, name):
    store = tmp_path / "store"
    store.mkdir()
    np.save(tmp_path / "y.npy", X)
    text = MANIFESTS[name]
    (store / "manifest.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(PmrlError, match="store"):
        read_dataset([str(store)])


@pytest.mark.parametrize("name", ["manifest.json", "ids.parquet", "present.npy", "good.npy"])
def test_a_store_with_a_pipe_in_it_is_refused_unopened(tmp_path, name):
    np.savez(tmp_path / "x.npz", features=X, ids=np.array(IDS))
    ingest_store([good(tmp_path), str(tmp_path / "x.npz")], tmp_path / "store")
    (tmp_path / "store" / name).unlink()
    os.mkfifo(tmp_path / "store" / name)
    with pytest.raises(PmrlError, match="store"):
        read_dataset([str(tmp_path / "store")])


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_model_whose_manifest_lies_is_refused_by_name(tmp_path, name):
    model = tmp_path / "model"
    model.mkdir()
    text = MANIFESTS[name]
    text = text if isinstance(text, bytes) else text.encode()
    (model / "manifest.json").write_bytes(text.replace(b"pmrl.store", b"pmrl.model"))
    with pytest.raises(PmrlError, match="model"):
        Aligner.load(model)


@pytest.mark.parametrize("name", ["deep", "digits", "list", "not UTF-8", "pipe"])
def test_an_output_with_the_manifest_of_another_program_is_not_replaced(tmp_path, name):
    manifest = tmp_path / "out" / "manifest.json"
    manifest.parent.mkdir()
    if name == "pipe":
        os.mkfifo(manifest)
    else:
        text = MANIFESTS[name]
        manifest.write_bytes((text if isinstance(text, bytes) else text.encode()).replace(b"pmrl.store", b"other"))
    with pytest.raises(UsageError, match="output exists: .*something that pmrl did not write"):
        check_replaceable(tmp_path / "out", kind="pmrl.store", force=False)


def test_a_state_whose_header_is_too_deep_to_be_read_is_refused_by_name(tmp_path):
    save_file({"a": X}, tmp_path / "state", {"pmrl.state": "[" * 100_000})
    with pytest.raises(DataError, match=r"not a state: .*state: maximum recursion depth"):
        read_state(tmp_path / "state")
