"""Ids and values survive every way through: file, join, store, export and back."""

import tempfile
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.numpy import save_file

from pmrl_cli.data.dataset import EmbeddedBlock
from pmrl_cli.errors import DataError
from pmrl_cli.files.artifacts.export import write_export
from pmrl_cli.files.artifacts.plan import ExportPlan
from pmrl_cli.files.artifacts.store import ingest_store
from pmrl_cli.files.join.dataset import read_dataset

LETTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
IDS = st.lists(
    st.one_of(
        st.text(LETTERS, min_size=1, max_size=12),
        st.sampled_from(["007", "7", "é", "e\u0301", "../../etc/passwd", " a", "a ", "\n", "\x1b[2J", "\u202e"]),
        st.integers(-(2**63), 2**64).map(str),
        st.text(LETTERS, min_size=200, max_size=250),
    ),
    min_size=2,
    max_size=6,
    unique=True,
)


def write(path, ids, values):
    """Write features and ids in the format of the suffix."""
    if path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["features"] = values
            file.create_dataset("ids", data=ids, dtype=h5py.string_dtype())
    elif path.suffix == ".npz":
        np.savez(path, features=values, ids=np.array(ids))
    else:
        pq.write_table(pa.table({"id": ids, "features": list(values)}), path)
    return str(path)


def export(data, folder, kind):
    """Write a data set as an export of unchanged vectors."""
    embeddings = np.stack([features.read(slice(0, len(data))) for features in data.modalities], axis=1)
    block = EmbeddedBlock(data.ids, embeddings, data.present, embeddings[:, 0])
    counts = data.present.sum(axis=0).tolist()
    plan = ExportPlan(data.names, tuple(counts), len(data), embeddings.shape[2], format=kind)
    write_export([block], folder, plan, provenance={})
    return folder


@settings(max_examples=40)
@given(
    ids=IDS,
    suffixes=st.tuples(*[st.sampled_from([".h5", ".parquet", ".npz"])] * 2),
    kind=st.sampled_from(["parquet", "h5", "npy"]),
    order=st.randoms(use_true_random=False),
)
def test_ids_are_the_same_bytes_after_join_store_export_and_reading(ids, suffixes, kind, order):
    if ".npz" in suffixes:
        assume(not any(i.endswith("\0") for i in ids))
    values = np.arange(1, 3 * len(ids) + 1, dtype=np.float32).reshape(-1, 3)
    moved = list(range(len(ids)))
    order.shuffle(moved)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        x = write(folder / f"x{suffixes[0]}", ids, values)
        y = write(folder / f"y{suffixes[1]}", [ids[i] for i in moved], values[moved])
        ingest_store([x, y], folder / "store")
        data = read_dataset([str(folder / "store")])
        assert data.ids.to_pylist() == ids
        back = read_dataset([str(export(data, folder / "out", kind))])
        assert back.ids.to_pylist() == ids
        for features in (*data.modalities, *back.modalities):
            assert np.array_equal(features.read(slice(0, len(ids))), values)


FLOATS = {
    ".h5": ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8"],
    ".npz": ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8"],
    ".npy": ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8"],
    ".parquet": ["<f2", "<f4", "<f8"],
    ".safetensors": ["<f2", "<f4", "<f8"],
}


@pytest.mark.parametrize(("suffix", "kind"), [(suffix, kind) for suffix, kinds in FLOATS.items() for kind in kinds])
@settings(max_examples=15)
@given(data=st.data())
def test_every_float_of_every_format_is_the_nearest_float32_or_refused(suffix, kind, data):
    bits = 8 * np.dtype(kind).itemsize
    elements = st.floats(width=bits, allow_nan=False, allow_infinity=False)
    shape = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 4)))
    values = data.draw(arrays.arrays(np.dtype(kind), shape, elements=elements))
    with np.errstate(over="ignore"):
        wanted = values.astype(np.float32)
    usable = np.isfinite(wanted).all() and wanted.any(axis=1).all()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / f"x{suffix}"
        if suffix == ".npy":
            np.save(path, values)
        elif suffix == ".safetensors":
            save_file({"features": values}, path)
        else:
            write(path, [f"i{row}" for row in range(len(values))], values)
        if not usable:
            with pytest.raises(DataError, match="non-finite value|zero vector"):
                read_dataset([str(path)], min_modalities=1)
            return
        (features,) = read_dataset([str(path)], min_modalities=1).modalities
        assert np.array_equal(features.read(slice(0, len(values))), wanted)


INTEGERS = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"]


@pytest.mark.parametrize("suffix", [".h5", ".npz", ".parquet"])
@pytest.mark.parametrize("kind", INTEGERS)
@settings(max_examples=5)
@given(data=st.data())
def test_integer_ids_are_their_decimal_text_whatever_their_size(suffix, kind, data):
    bounds = np.iinfo(kind)
    ids = data.draw(st.lists(st.integers(bounds.min, bounds.max), min_size=1, max_size=4, unique=True))
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / f"x{suffix}"
        values = np.ones((len(ids), 2), np.float32)
        if suffix == ".h5":
            with h5py.File(path, "w") as file:
                file["features"], file["ids"] = values, np.array(ids, kind)
        elif suffix == ".npz":
            np.savez(path, features=values, ids=np.array(ids, kind))
        else:
            pq.write_table(pa.table({"id": np.array(ids, kind), "features": list(values)}), path)
        assert read_dataset([str(path)], min_modalities=1).ids.to_pylist() == [str(i) for i in ids]
