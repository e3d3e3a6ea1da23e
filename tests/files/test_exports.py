"""Exports hold exactly the embeddings of the instances that have them, whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import sys
import types
from contextlib import closing
from types import SimpleNamespace

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pmrl_cli.cli import export_checks
from pmrl_cli.data.shards import shard_rows
from pmrl_cli.errors import UsageError
from pmrl_cli.files.artifacts.export import write_export, write_files, write_stream
from pmrl_cli.files.artifacts.plan import ExportPlan
from pmrl_cli.files.artifacts.writer_parts import WriterPart, part_of_shard
from pmrl_cli.files.artifacts.writers import REGISTRY, Writer
from pmrl_cli.files.formats import vector_tables
from pmrl_cli.files.formats.vector_tables import ParquetParts, Parts
from pmrl_cli.files.join.dataset import read_dataset
from tests.files.exported import DIM, NAMES, Space, files_of, vectors_of


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
