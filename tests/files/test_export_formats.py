"""What each format of an export holds, and how damage to it is found."""

from __future__ import annotations

import hashlib
import io

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pmrl_cli.errors import DataError
from pmrl_cli.files.artifacts.export import write_stream
from pmrl_cli.files.formats import vector_tables
from pmrl_cli.files.join.dataset import read_dataset
from tests.files.exported import DIM, NAMES, Space, files_of, texts, vectors_of


@settings(max_examples=25, deadline=None)
@given(ids=st.lists(texts, unique=True, max_size=30), rows_per_file=st.integers(1, 12))
def test_parquet_holds_each_modality_of_each_instance_in_order(tmp_path_factory, ids, rows_per_file):
    space = Space(len(ids), ids=ids)
    out = tmp_path_factory.mktemp("export") / "aligned"
    space.export(out, rows_per_file=rows_per_file)
    for name, (expected_ids, expected) in space.tables().items():
        parts = sorted((out / name).iterdir())
        n = max(1, -(-len(expected_ids) // rows_per_file))
        assert [p.name for p in parts] == [f"part-{i:05d}-of-{n:05d}.parquet" for i in range(n)]
        tables = [pq.read_table(p) for p in parts]
        assert all(len(table) == rows_per_file for table in tables[:-1])
        table = pa.concat_tables(tables)
        assert table["id"].to_pylist() == expected_ids
        np.testing.assert_array_equal(vectors_of(table["embedding"]), expected)


@settings(max_examples=25, deadline=None)
@given(ids=st.lists(texts, unique=True, max_size=30))
def test_hdf5_holds_each_modality_of_each_instance_in_order(tmp_path_factory, ids):
    space = Space(len(ids), ids=ids)
    out = tmp_path_factory.mktemp("export") / "aligned"
    space.export(out, format="h5")
    for name, (expected_ids, expected) in space.tables().items():
        with h5py.File(out / f"{name}.h5") as file:
            assert list(file["id"].asstr()[:]) == expected_ids
            np.testing.assert_array_equal(file["embedding"][:], expected)


def test_a_flipped_bit_in_hdf5_vectors_or_ids_is_noticed_by_its_checksum(tmp_path):
    out = tmp_path / "aligned"
    Space(200).export(out, format="h5")
    path = out / "image.h5"
    good = path.read_bytes()
    for name in ("embedding", "id"):
        with h5py.File(path) as file:
            chunk = file[name].id.get_chunk_info(0)
        data = bytearray(good)
        data[chunk.byte_offset + chunk.size // 2] ^= 1
        path.write_bytes(data)
        with h5py.File(path) as file, pytest.raises(OSError, match="filter returned failure during read"):
            file[name][:]
        path.write_bytes(good)


def test_the_store_keeps_instances_in_step_and_digests_their_rows(tmp_path):
    space = Space(60)
    out = tmp_path / "aligned"
    manifest = space.export(out, (20,), format="npy")
    assert manifest["format"] == "pmrl.store"
    assert pq.read_table(out / "ids.parquet")["id"].to_pylist() == space.ids[space.kept].tolist()
    np.testing.assert_array_equal(np.load(out / "present.npy"), space.present[space.kept])
    np.testing.assert_array_equal(np.load(out / "fused.npy"), space.fused[space.kept])
    for m, name in enumerate(NAMES):
        expected = space.embeddings[space.kept, m]
        np.testing.assert_array_equal(np.load(out / f"{name}.npy", mmap_mode="r"), expected)
        digest = hashlib.sha256((out / f"{name}.npy").read_bytes()).hexdigest()
        assert manifest["modalities"][m] == {
            "name": name,
            "dtype": "float32",
            "dim": DIM,
            "rows": int(space.kept.sum()),
            "digest": digest,
        }


def check_stream(space: Space, batches: list[pa.RecordBatch]) -> None:
    table = pa.Table.from_batches(batches)
    assert table["id"].to_pylist() == space.ids[space.kept].tolist()
    for m, name in enumerate(NAMES):
        expected = space.embeddings[space.kept, m].astype(float).tolist()
        has = space.present[space.kept, m]
        assert table[name].to_pylist() == [row if there else None for row, there in zip(expected, has, strict=True)]
    np.testing.assert_array_equal(vectors_of(table["fused"]), space.fused[space.kept])


def test_the_stream_is_wide_with_null_where_a_modality_lacks():
    space = Space(40)
    sink = io.BytesIO()
    write_stream(space.blocks((7, 30)), sink, space.plan(format="arrow"))
    batches = list(pa.ipc.open_stream(sink.getvalue()))
    assert len(batches) == 3
    check_stream(space, batches)


def test_arrow_in_a_folder_is_that_stream(tmp_path):
    space = Space(40)
    space.export(tmp_path / "aligned", format="arrow")
    with (tmp_path / "aligned" / "aligned.arrows").open("rb") as file:
        check_stream(space, list(pa.ipc.open_stream(file)))


def test_a_reader_of_the_stream_has_each_block_before_the_next_is_made():
    space = Space(40)
    arrived = []

    class Pipe(io.RawIOBase):
        def __init__(self):
            self.pending, self.through = b"", b""

        def writable(self):
            return True

        def write(self, data):
            self.pending += bytes(data)
            return len(data)

        def flush(self):
            self.through += self.pending
            self.pending = b""

    pipe = Pipe()

    def blocks():
        for block in space.blocks((10, 20)):
            arrived.append(pipe.through)
            yield block

    write_stream(blocks(), pipe, space.plan(format="arrow"))
    rows = [sum(len(batch) for batch in complete_batches(through)) for through in arrived[1:]]
    assert rows == [int(space.kept[:10].sum()), int(space.kept[:20].sum())]


def complete_batches(stream: bytes) -> list[pa.RecordBatch]:
    end_of_stream = b"\xff\xff\xff\xff\x00\x00\x00\x00"
    return list(pa.ipc.open_stream(stream + end_of_stream))


def test_row_groups_are_full_however_small_the_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(vector_tables, "_GROUP_ROWS", 16)
    space = Space(100)
    space.export(tmp_path / "aligned", tuple(range(100)), rows_per_file=40)
    metadata = pq.read_metadata(next((tmp_path / "aligned" / "fused").glob("part-00000-*")))
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [16, 16, 8]


@pytest.mark.parametrize("format_", ["parquet", "h5", "npy"])
def test_float16_is_the_nearest_to_the_embedding(tmp_path, format_):
    space = Space(30)
    out = tmp_path / "aligned"
    space.export(out, format=format_, dtype="float16")
    if format_ == "parquet":
        found = vectors_of(pq.read_table(out / "fused")["embedding"]).astype(np.float16)
    elif format_ == "h5":
        with h5py.File(out / "fused.h5") as file:
            found = file["embedding"][:]
    else:
        found = np.load(out / "fused.npy")
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, space.fused[space.kept].astype(np.float16))


def test_a_flipped_bit_in_a_parquet_page_is_noticed_by_its_checksum(tmp_path):
    out = tmp_path / "aligned"
    Space(200).export(out)
    path = out / "image" / "part-00000-of-00001.parquet"
    column = pq.read_metadata(path).row_group(0).column(1)
    data = bytearray(path.read_bytes())
    data[column.data_page_offset + column.total_compressed_size - 1] ^= 1
    path.write_bytes(data)
    with pytest.raises(OSError, match="CRC checksum verification failed"):
        pq.read_table(path, page_checksum_verification=True)


def wide_rows(table, space):
    """Check that a table of one row for each instance holds each vector, and null where there is none."""
    assert table.column_names == ["id", *NAMES, "fused"]
    assert table["id"].to_pylist() == space.ids[space.kept].tolist()
    for m, name in enumerate(NAMES):
        expected = [list(v) if has else None for v, has in zip(
            space.embeddings[space.kept, m].tolist(), space.present[space.kept, m], strict=True)]  # fmt: skip
        assert table[name].to_pylist() == expected
    np.testing.assert_array_equal(vectors_of(table["fused"]), space.fused[space.kept])


def test_wide_parquet_has_a_row_for_each_instance_whatever_the_blocks(tmp_path, monkeypatch):
    from pmrl_cli.files.artifacts.writers import parquet

    monkeypatch.setattr(parquet, "_WIDE_GROUP", 8)
    space = Space(30)
    space.export(tmp_path / "one", layout="wide")
    space.export(tmp_path / "other", (3, 4, 20), layout="wide")
    assert files_of(tmp_path / "one") == files_of(tmp_path / "other")
    path = tmp_path / "one" / "aligned.parquet"
    assert pq.read_metadata(path).row_group(0).num_rows == 8
    wide_rows(pq.read_table(path), space)
    space.part(slice(0, 0)).export(tmp_path / "none", layout="wide", counts=(0, 0, 0), rows=0)
    assert len(pq.read_table(tmp_path / "none" / "aligned.parquet")) == 0


def test_csv_reads_back_as_the_same_vectors(tmp_path):
    space = Space(30, ids=[f'a "{i}", b' for i in range(30)])
    space.export(tmp_path / "aligned", (7,), format="csv")
    paths = [str(tmp_path / "aligned" / f"{name}.csv") for name in NAMES]
    found = read_dataset(paths, min_modalities=1, feature_column="d*")
    for m, (name, features) in enumerate(zip(NAMES, found.modalities, strict=True)):
        ids, vectors = space.tables()[name]
        rows = np.array([found.ids.to_pylist().index(i) for i in sorted(ids)])
        assert found.present[:, m].sum() == len(ids)
        np.testing.assert_array_equal(features.read(rows), vectors[np.argsort(ids)])


def test_lance_has_a_row_for_each_instance(tmp_path):
    lance = pytest.importorskip("lance")
    space = Space(30)
    space.export(tmp_path / "aligned", (7,), format="lance")
    wide_rows(lance.dataset(str(tmp_path / "aligned" / "aligned.lance")).to_table(), space)


@pytest.mark.parametrize("form", ["faiss", "faiss-hnsw"])
def test_an_index_of_faiss_finds_each_vector_under_its_id(tmp_path, form):
    faiss = pytest.importorskip("faiss")
    space = Space(30)
    for out in ("aligned", "again"):
        space.export(tmp_path / out, (7,), format=form, dtype="float16")
    for name, (ids, vectors) in space.tables().items():
        index = faiss.read_index(str(tmp_path / "aligned" / f"{name}.faiss"))
        assert index.metric_type == faiss.METRIC_INNER_PRODUCT
        assert isinstance(index, faiss.IndexHNSWFlat) == (form == "faiss-hnsw")
        stored = vectors.astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(index.reconstruct_n(0, len(ids)), stored)
        assert index.search(stored, 1)[1][:, 0].tolist() == (stored @ stored.T).argmax(axis=1).tolist()
        assert pq.read_table(tmp_path / "aligned" / f"{name}.ids.parquet")["id"].to_pylist() == ids
    assert files_of(tmp_path / "aligned") == files_of(tmp_path / "again")


def test_an_id_with_nul_is_refused_by_hdf5_and_kept_by_parquet(tmp_path):
    space = Space(3, ids=["a", "b\0", "c"])
    space.present[:] = True
    space.kept[:] = True
    with pytest.raises(DataError) as caught:
        space.export(tmp_path / "h5", (1,), format="h5")
    assert str(caught.value) == (
        "id cannot be stored in HDF5: audio.h5:id row 1 (id 'b\\x00'): a NUL character, expected text without one. "
        "Export with --format parquet."
    )
    space.export(tmp_path / "parquet")
    assert pq.read_table(tmp_path / "parquet" / "fused")["id"].to_pylist() == ["a", "b\0", "c"]
