"""Exports hold exactly the embeddings of the instances that have them, whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import sys
import types
from collections.abc import Iterator
from contextlib import closing
from copy import copy
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pmrl_cli.cli import export_checks
from pmrl_cli.data.dataset import EmbeddedBlock
from pmrl_cli.data.shards import shard_rows
from pmrl_cli.errors import DataError, UsageError
from pmrl_cli.files.artifacts.export import write_export, write_files, write_stream
from pmrl_cli.files.artifacts.plan import ExportPlan
from pmrl_cli.files.artifacts.writer_parts import WriterPart, part_of_shard
from pmrl_cli.files.artifacts.writers import REGISTRY, Writer
from pmrl_cli.files.formats import vector_tables
from pmrl_cli.files.formats.vector_tables import ParquetParts, Parts
from pmrl_cli.files.join.dataset import read_dataset

NAMES = ("audio", "image", "text")
DIM = 4


class Space:
    """n embedded instances, some lacking modalities, as blocks and as the arrays to compare with."""

    def __init__(self, n: int, seed: int = 0, ids: list[str] | None = None):
        generator = np.random.default_rng(seed)
        self.ids = np.array(ids if ids is not None else [f"clip-{i}é" for i in range(n)], dtype=object)
        self.present = generator.random((n, len(NAMES))) < 0.7
        self.embeddings = generator.normal(size=(n, len(NAMES), DIM)).astype(np.float32)
        self.embeddings[~self.present] = 0
        self.fused = generator.normal(size=(n, DIM)).astype(np.float32)
        self.kept = self.present.any(axis=1)

    def blocks(self, cuts: tuple[int, ...] = ()) -> Iterator[EmbeddedBlock]:
        edges = [0, *sorted(cuts), len(self.ids)]
        for start, stop in pairwise(edges):
            part = slice(start, stop)
            ids = pa.array(self.ids[part].tolist(), pa.large_string())
            yield EmbeddedBlock(ids, self.embeddings[part], self.present[part], self.fused[part])

    def part(self, rows: slice) -> Space:
        """Those instances alone."""
        part = copy(self)
        part.ids, part.present, part.kept = self.ids[rows], self.present[rows], self.kept[rows]
        part.embeddings, part.fused = self.embeddings[rows], self.fused[rows]
        return part

    def export(self, out: Path, cuts: tuple[int, ...] = (), **options) -> dict:
        outside = {key: options.pop(key) for key in ("force", "provenance") if key in options}
        outside.setdefault("provenance", {"inputs": {}})
        return write_export(self.blocks(cuts), out, self.plan(**options), **outside)

    def plan(self, **options) -> ExportPlan:
        known = {
            "names": NAMES,
            "counts": tuple(self.present.sum(axis=0).tolist()),
            "rows": int(self.kept.sum()),
            "dim": DIM,
        }
        return ExportPlan(**(known | options))

    def tables(self) -> dict[str, tuple[list[str], np.ndarray]]:
        """What every table must hold, by definition."""
        tables = {
            name: (self.ids[self.present[:, m]].tolist(), self.embeddings[self.present[:, m], m])
            for m, name in enumerate(NAMES)
        }
        return {**tables, "fused": (self.ids[self.kept].tolist(), self.fused[self.kept])}


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def vectors_of(column: pa.ChunkedArray) -> np.ndarray:
    return np.array(column.to_pylist()).reshape(-1, DIM)


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)


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


@settings(max_examples=20, deadline=None)
@given(
    n=st.integers(0, 12),
    of=st.integers(1, 5),
    rows_per_file=st.integers(1, 6),
    format_=st.sampled_from(["parquet", "h5"]),
)
def test_the_files_of_all_shards_side_by_side_are_the_whole(tmp_path_factory, n, of, rows_per_file, format_):
    space, folder = Space(n), tmp_path_factory.mktemp("export")
    together: dict[str, bytes] = {}
    for index in range(of):
        part = space.part(shard_rows(n, index, of))
        written = part_of_shard(NAMES, space.present, index, of, rows_per_file)
        manifest = part.export(folder / str(index), format=format_, rows_per_file=rows_per_file, part=written)
        assert manifest["shard"] == {"index": index + 1, "of": of}
        files = files_of(folder / str(index))
        del files["manifest.json"]
        assert not files.keys() & together.keys()
        assert manifest["files"] == {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        together |= files
    for name, (expected_ids, expected) in space.tables().items():
        mine = sorted(path for path in together if path.startswith(name))
        if format_ == "parquet":
            assert mine == [f"{name}/part-{i:05d}-of-{len(mine):05d}.parquet" for i in range(len(mine))]
            table = pa.concat_tables(pq.read_table(io.BytesIO(together[path])) for path in mine)
            ids, found = table["id"].to_pylist(), vectors_of(table["embedding"])
        else:
            assert mine == [f"{name}-{i:05d}-of-{of:05d}.h5" for i in range(of)]
            files = [h5py.File(io.BytesIO(together[path])) for path in mine]
            ids = [one for file in files for one in file["id"].asstr()[:]]
            found = np.concatenate([file["embedding"][:] for file in files])
        assert ids == expected_ids
        np.testing.assert_array_equal(found, expected)


@settings(max_examples=10, deadline=None)
@given(n=st.integers(0, 30), writers=st.integers(1, 4), rows_per_file=st.integers(1, 9), cut=st.integers(0, 30))
def test_writers_of_given_parts_write_the_bytes_of_one_writer(tmp_path_factory, n, writers, rows_per_file, cut):
    space, folder = Space(n), tmp_path_factory.mktemp("export")
    whole = space.export(folder / "whole", rows_per_file=rows_per_file)
    (folder / "shared").mkdir()
    digests: dict[str, str] = {}
    for index in range(writers):
        parts = {}
        for name, (ids, _) in space.tables().items():
            count = max(1, -(-len(ids) // rows_per_file))
            mine = shard_rows(count, index, writers)
            skip, stop = (min(x * rows_per_file, len(ids)) for x in (mine.start, mine.stop))
            parts[name] = Parts(mine.start, mine.stop, count, skip, stop - skip, len(ids))
        _, files = write_files(
            space.blocks((min(cut, n),)),
            folder / "shared",
            space.plan(rows_per_file=rows_per_file, part=WriterPart(index, writers, parts)),
        )
        assert not files.keys() & digests.keys()
        digests |= files
    assert digests == whole["files"]
    assert digests == {name: hashlib.sha256(data).hexdigest() for name, data in files_of(folder / "shared").items()}


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


@settings(max_examples=25, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 100), max_size=5).map(tuple),
    format_=st.sampled_from(["parquet", "h5", "npy"]),
    rows_per_file=st.integers(5, 60),
)
def test_the_bytes_do_not_depend_on_the_blocks(tmp_path_factory, cuts, format_, rows_per_file):
    space, folder = Space(100), tmp_path_factory.mktemp("export")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vector_tables, "_GROUP_ROWS", 16)
        patch.setattr(vector_tables, "_CHUNK_BYTES", 10 * 4 * DIM)
        for name, its_cuts in (("whole", ()), ("cut", cuts)):
            space.export(folder / name, its_cuts, format=format_, rows_per_file=rows_per_file)
    assert files_of(folder / "whole") == files_of(folder / "cut")


def test_row_groups_are_full_however_small_the_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(vector_tables, "_GROUP_ROWS", 16)
    space = Space(100)
    space.export(tmp_path / "aligned", tuple(range(100)), rows_per_file=40)
    metadata = pq.read_metadata(next((tmp_path / "aligned" / "fused").glob("part-00000-*")))
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [16, 16, 8]


INSTALLED = [
    pytest.param(name, marks=[] if writer.installed else pytest.mark.skip(f"no {writer.library}"))
    for name, writer in REGISTRY.items()
]


@pytest.mark.parametrize("format_", INSTALLED)
def test_the_manifest_digests_every_file_and_names_no_place(tmp_path, format_):
    out = tmp_path / "aligned"
    returned = Space(20).export(out, format=format_)
    written = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    written.pop("seal")
    assert written == returned
    others = {name: data for name, data in files_of(out).items() if name != "manifest.json"}
    assert written["files"] == {name: hashlib.sha256(data).hexdigest() for name, data in others.items()}
    for data in files_of(out).values():
        assert str(tmp_path).encode() not in data


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


@pytest.mark.parametrize("format_", INSTALLED)
def test_a_failure_leaves_the_earlier_export_and_nothing_else(tmp_path, format_):
    space, out = Space(30), tmp_path / "aligned"
    space.export(out, format=format_)
    before = files_of(tmp_path)

    def broken():
        yield next(space.blocks((10,)))
        raise MemoryError

    with pytest.raises(MemoryError):
        write_export(broken(), out, ExportPlan(NAMES, (9, 9, 9), 30, DIM, format=format_), provenance={})
    assert files_of(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["aligned"]


@pytest.mark.parametrize("format_", INSTALLED)
def test_other_numbers_of_instances_than_announced_are_no_export(tmp_path, format_):
    space = Space(30)
    with pytest.raises(ValueError, match=r"the blocks hold \d+ instances of .*, \d+ were announced"):
        space.export(tmp_path / "aligned", format=format_, rows=int(space.kept.sum()) + 1)
    assert not (tmp_path / "aligned").exists()


def test_the_result_replaces_an_earlier_export_of_another_format(tmp_path):
    space, out = Space(10), tmp_path / "aligned"
    space.export(out, format="h5")
    space.export(out, format="npy")
    assert not list(out.glob("*.h5"))


def test_a_model_or_store_is_not_replaced_by_an_export(tmp_path):
    out = tmp_path / "model"
    out.mkdir()
    (out / "manifest.json").write_text('{"format": "pmrl.model"}', encoding="utf-8")
    with pytest.raises(UsageError, match=r"output exists: .*model: a pmrl\.model, expected a new path or an earlier"):
        Space(10).export(out)
    assert [path.name for path in out.iterdir()] == ["manifest.json"]


@pytest.mark.parametrize("format_", ["parquet", "h5", "npy"])
def test_an_export_is_read_back_as_its_modalities_without_the_fused_one(tmp_path, format_):
    space, out = Space(30), tmp_path / "aligned"
    space.export(out, (7,), format=format_)
    found = read_dataset([str(out)], min_modalities=1)
    assert found.names == NAMES  # h5 once gave fused.h5 as a fourth
    order = [found.ids.to_pylist().index(i) for i in space.ids[space.kept]]  # npy once was no store
    assert len(order) == len(found)
    for m, features in enumerate(found.modalities):
        expected = space.embeddings[space.kept, m] * space.present[space.kept, m, None]
        np.testing.assert_array_equal(features.read(np.array(order)), expected)
    np.testing.assert_array_equal(found.present[order], space.present[space.kept])


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


def test_what_pmrl_did_not_write_needs_force(tmp_path):
    space, out = Space(10), tmp_path / "aligned"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(UsageError, match=r"output exists: .*pmrl did not write.*--force"):
        space.export(out)
    assert files_of(out) == {"thesis.txt": b"years of work"}
    space.export(out, force=True)
    assert not (out / "thesis.txt").exists()


@pytest.mark.parametrize(
    "name", ["fused", "id", "present", "manifest.json", ".", "..", ".git", "", "a/b", "é", "x" * 65]
)
def test_a_modality_that_cannot_name_a_file_is_refused(tmp_path, name):
    with pytest.raises(UsageError, match="modality cannot name a file"):
        Space(5).export(tmp_path / "aligned", names=("audio", "image", name))
    with pytest.raises(UsageError, match="modality cannot name a file"):
        write_stream(Space(5).blocks(), io.BytesIO(), Space(5).plan(names=("audio", "image", name), format="arrow"))
    assert not list(tmp_path.iterdir())


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


@pytest.mark.parametrize("failing", ["open", "footer"])
def test_a_full_disk_between_two_parts_is_reported_as_one(tmp_path, monkeypatch, failing):
    # What was half closed is not closed again, which would raise something else.
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    table = ParquetParts(tmp_path / "t", Parts(0, 3, 3, 0, 6, 6), 2, np.dtype(np.float32), 2)
    ids = pa.array(["a", "b", "c", "d"], pa.large_string())
    if failing == "open":
        monkeypatch.setattr("pmrl_cli.files.formats.vector_tables.HashedFile", full)
    else:
        table._writer.close()
        table._writer = SimpleNamespace(write_table=lambda *_, **__: None, close=full)
    with pytest.raises(OSError, match="No space"), closing(table):
        table.write(ids, np.ones((4, 2), dtype=np.float32))


def test_a_writer_registered_in_one_line_exports_from_the_command_line_too(tmp_path, monkeypatch):
    home = types.ModuleType("a_throw_away_writer")

    def write(folder, blocks, plan):
        path = folder / "all.txt"
        lines = [f"{i} {v.sum():.3f}\n" for block in blocks for i, v in zip(block.ids, block.fused, strict=True)]
        path.write_text("".join(lines))
        return {"lines": len(lines)}, {path: hashlib.sha256(path.read_bytes()).hexdigest()}

    home.write = write
    monkeypatch.setitem(sys.modules, home.__name__, home)
    monkeypatch.setitem(REGISTRY, "lines", Writer(home.__name__))
    space = Space(12)
    manifest = space.export(tmp_path / "out", format="lines")
    assert manifest["file_format"] == "lines"
    assert manifest["lines"] == space.kept.sum()
    kept = space.ids[space.kept]
    assert (tmp_path / "out" / "all.txt").read_text().splitlines() == [
        f"{i} {v.sum():.3f}" for i, v in zip(kept, space.fused[space.kept], strict=True)
    ]
    assert export_checks.format_named("lines", streaming=False) == "lines"
    with pytest.raises(UsageError, match="cannot stream: --format lines with -o -"):
        export_checks.check_stream("lines", json=False)
    with pytest.raises(UsageError, match="unknown format: --format line, expected one of parquet, h5, npy"):
        export_checks.format_named("line", streaming=False)
