"""``pmrl export`` writes what the model makes of every instance, to a folder or down a pipe."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pmrl_cli.cli.main import app
from pmrl_cli.data.dataset import Dataset, EmbeddedBlock, Features
from pmrl_cli.data.read_options import ReadOptions
from pmrl_cli.errors import UsageError

SAMPLE_DATA = Path(__file__).parents[2] / "sample_data"

IDS = [f"clip-{i}" for i in range(10)]
PRESENT = np.array([[True, i % 3 != 0] for i in range(10)])
PRESENT[4] = [False, True]
VECTORS = {
    name: np.random.default_rng(seed).normal(size=(10, 3)).astype(np.float32) * PRESENT[:, [seed]]
    for seed, name in enumerate(("image", "text"))
}


class StandIn:
    """An aligner whose embedding is twice the features, so that what is exported is known; fused, their sum or 0."""

    dim = 3
    codes = None

    @classmethod
    def load(cls, path: Path, *, device: str) -> StandIn:
        assert (path / "manifest.json").exists()
        assert device == "cpu"
        return cls()

    def embed(self, dataset: Dataset, rows: slice, *, fusion: str):
        assert rows == slice(0, len(dataset))
        for block in (slice(0, 6), slice(6, 10)):
            stacked = 2 * np.stack([features.read(block) for features in dataset.modalities], axis=1)
            yield EmbeddedBlock(
                dataset.ids[block], stacked, dataset.present[block], stacked.sum(axis=1) * (fusion == "leading")
            )


@pytest.fixture
def asked(monkeypatch) -> dict[str, object]:
    """Put known data behind the command; the dictionary is what it asked ``read_dataset`` for."""
    asked: dict[str, object] = {}

    def read_dataset(files, options):
        asked.update(vars(options), files=files)
        modalities = tuple(Features(name, array, digest=f"digest of {name}") for name, array in VECTORS.items())
        notes = ("2 rows have no partner.",)
        return Dataset(pa.array(IDS, pa.large_string()), modalities, PRESENT, notes=notes)

    monkeypatch.setattr("pmrl_cli.files.join.items.check_there", lambda files: None)
    for name, attribute in (("files.join.dataset", read_dataset), ("aligner", StandIn)):
        module = ModuleType(f"pmrl_cli.{name}")
        setattr(module, attribute.__name__ if attribute is read_dataset else "Aligner", attribute)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return asked


@pytest.fixture
def model(tmp_path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "manifest.json").write_text('{"format": "pmrl.model"}\n', encoding="utf-8")
    return folder


def export(model: Path, *options: str):
    arguments = ["export", "image.h5", "text.h5", "--model", str(model), "--device", "cpu", *options]
    return CliRunner().invoke(app, arguments, catch_exceptions=True)


def test_it_prints_the_folder_and_nothing_else_on_stdout(tmp_path, model, asked):
    out = tmp_path / "aligned"
    result = export(model, "-o", str(out))
    assert result.exit_code == 0, result.exception
    assert result.stdout == f"{out}\n"
    assert result.stderr == "note: 2 rows have no partner.\n"
    table = pq.read_table(out / "text")
    assert table["id"].to_pylist() == [i for i, has in zip(IDS, PRESENT[:, 1], strict=True) if has]
    np.testing.assert_array_equal(table["embedding"].to_pylist(), 2 * VECTORS["text"][PRESENT[:, 1]])
    assert pq.read_table(out / "fused")["id"].to_pylist() == IDS


def test_every_instance_is_read_even_with_one_modality(tmp_path, model, asked):
    export(model, "-o", str(tmp_path / "aligned"), "--on-bad", "drop", "--max-memory", "1G", "--id-column", "key")
    wanted = ReadOptions(min_modalities=1, on_bad="drop", id_column=("key",), max_memory=2**30)
    assert asked == {"files": ["image.h5", "text.h5"], **vars(wanted)}


def test_json_summarises_the_export(tmp_path, model, asked):
    out = tmp_path / "aligned"
    result = export(model, "-o", str(out), "--json", "-q", "--format", "h5", "--dtype", "float16")
    assert json.loads(result.stdout) == {
        "schema": "pmrl.export/1",
        "output": str(out),
        "file_format": "h5",
        "layout": "tables",
        "dim": 3,
        "dtype": "float16",
        "fusion": "leading",
        "instances": 10,
        "modalities": {"image": 9, "text": int(PRESENT[:, 1].sum())},
    }
    assert result.stderr == ""


def test_the_manifest_records_its_inputs(tmp_path, model, asked):
    out = tmp_path / "aligned"
    export(model, "-o", str(out))
    provenance = json.loads((out / "manifest.json").read_text(encoding="utf-8"))["provenance"]
    assert provenance["inputs"] == {"image": "digest of image", "text": "digest of text"}
    (model / "manifest.json").write_text('{"format": "pmrl.model", "files": {}}\n', encoding="utf-8")
    export(model, "-o", str(out))
    assert (
        json.loads((out / "manifest.json").read_text(encoding="utf-8"))["provenance"]["model"] != provenance["model"]
    )


def test_the_chosen_fusion_is_written_and_recorded(tmp_path, model, asked):
    out = tmp_path / "aligned"
    for fusion in ("leading", "weighted"):
        summary = json.loads(export(model, "-o", str(out), "--json", "-q", "--fusion", fusion).stdout)
        manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
        assert summary["fusion"] == manifest["provenance"]["fusion"] == fusion
        assert np.any(pq.read_table(out / "fused")["embedding"].to_pylist()) == (fusion == "leading")


def test_a_dash_streams_arrow(model, asked):
    result = export(model, "-o", "-", "-q")
    assert result.exit_code == 0, result.exception
    batches = list(pa.ipc.open_stream(result.stdout_bytes))
    assert [len(batch) for batch in batches] == [6, 4]
    table = pa.Table.from_batches(batches)
    assert table.column_names == ["id", "image", "text", "fused"]
    assert table["id"].to_pylist() == IDS
    assert table["image"].null_count == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--format", "parquet"],
            "cannot stream: --format parquet with -o -, expected --format arrow. A format of several files, or one "
            "that is written back and forth, does not fit a pipe: name a folder with -o.",
        ),
        (
            ["--json"],
            "cannot stream: --json with -o -, expected one of them, for both write to standard output. "
            "Leave --json out.",
        ),
    ],
)
def test_what_cannot_be_streamed_is_refused_with_the_reason(model, asked, options, message):
    result = export(model, "-o", "-", *options)
    assert isinstance(result.exception, UsageError)
    assert str(result.exception) == message
    assert result.stdout == ""


def test_a_wide_export_is_one_table_and_only_of_formats_that_have_it(tmp_path, model, asked):
    out = tmp_path / "aligned"
    assert export(model, "-o", str(out), "--layout", "wide").exit_code == 0
    table = pq.read_table(out / "aligned.parquet")
    assert table.column_names == ["id", "image", "text", "fused"]
    assert table["text"].is_valid().to_pylist() == PRESENT[:, 1].tolist()
    result = export(model, "-o", str(out), "--layout", "wide", "--format", "h5")
    assert "--layout wide with --format h5, expected --layout tables" in str(result.exception)


def test_a_format_whose_library_is_missing_names_the_extra(tmp_path, model, asked, monkeypatch):
    monkeypatch.setattr("pmrl_cli.files.artifacts.writers.find_spec", lambda name: None)
    result = export(model, "-o", str(tmp_path / "aligned"), "--format", "faiss")
    assert isinstance(result.exception, UsageError)
    assert "pip install 'pmrl-cli[faiss]'" in str(result.exception)


def test_binary_does_not_go_to_a_terminal(model, asked, monkeypatch):
    monkeypatch.setattr("pmrl_cli.cli.export_checks.sys.stdout", type("Terminal", (), {"isatty": lambda _: True})())
    from pmrl_cli.cli.export_checks import check_stream

    with pytest.raises(UsageError, match="cannot stream: a terminal as standard output, expected a pipe or a file"):
        check_stream("arrow", json=False)


def test_the_model_is_not_overwritten(model, asked):
    result = export(model, "-o", str(model))
    assert isinstance(result.exception, UsageError)
    assert "files" not in asked, "it should be refused before any reading"
    assert [path.name for path in model.iterdir()] == ["manifest.json"]


def test_exported_sample_data_is_what_the_model_computes(tmp_path):
    from pmrl_cli import Aligner, read_dataset

    files = [str(path) for path in sorted((SAMPLE_DATA / "features").iterdir())]
    Aligner(dim=8, steps=0, adapter="linear", device="cpu").fit(read_dataset(files)).save(tmp_path / "model")
    out = tmp_path / "aligned"
    result = CliRunner().invoke(app, ["export", *files, "--model", str(tmp_path / "model"), "-o", str(out), "-q"])
    assert result.exit_code == 0, result.exception
    dataset = read_dataset(files, join="outer", min_modalities=1)
    embedded = Aligner.load(tmp_path / "model").transform(dataset)
    expected_rows = {"left": 1797, "right": 1698, "spectrum": 1617, "fused": 1797}
    assert {name: pq.read_table(out / name).num_rows for name in expected_rows} == expected_rows
    for name, vectors in embedded.items():
        table = pq.read_table(out / name)
        has = ~np.isnan(vectors[:, 0])
        assert table["id"].to_pylist() == dataset.ids.filter(pa.array(has)).to_pylist()
        np.testing.assert_array_equal(np.array(table["embedding"].to_pylist(), np.float32), vectors[has])


def test_the_shards_of_an_export_put_together_are_the_export(tmp_path):
    from pmrl_cli import Aligner, read_dataset
    from pmrl_cli.files.artifacts.store import ingest_store

    files = [str(path) for path in sorted((SAMPLE_DATA / "features").iterdir())]
    Aligner(dim=8, steps=0, adapter="linear", device="cpu").fit(read_dataset(files)).save(tmp_path / "model")
    ingest_store(files, tmp_path / "store", ReadOptions(min_modalities=1))

    def table_of(out: Path, name: str) -> pa.Table:
        return pa.concat_tables(pq.read_table(path) for path in sorted((out / name).iterdir()))

    def run(out: Path, *options: str) -> dict[str, object]:
        typed = [
            "export",
            str(tmp_path / "store"),
            "--model",
            str(tmp_path / "model"),
            "-o",
            str(out),
            "--json",
            "-q",
        ]
        result = CliRunner().invoke(app, [*typed, "--rows-per-file", "500", *options])
        assert result.exit_code == 0, result.exception
        return json.loads(result.stdout)

    whole = run(tmp_path / "whole")
    together = tmp_path / "together"
    shards = [run(tmp_path / f"{i}", "--shard", f"{i}/3") for i in (3, 1, 2)]
    assert [summary["shard"] for summary in shards] == [{"index": i, "of": 3} for i in (3, 1, 2)]
    assert sum(summary["instances"] for summary in shards) == whole["instances"]
    for i in (1, 2, 3):
        shutil.copytree(tmp_path / f"{i}", together, dirs_exist_ok=True)
    for name in ("left", "right", "spectrum", "fused"):
        assert table_of(together, name).equals(table_of(tmp_path / "whole", name)), name
    assert len(list((together / "fused").iterdir())) == 6
    empty = run(tmp_path / "none", "--shard", "1/2000")
    assert empty["instances"] == 0
    assert table_of(tmp_path / "none", "left").schema == table_of(together, "left").schema
