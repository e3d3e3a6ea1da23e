"""``pmrl export`` with codes and fewer channels: in every format, shard and later export the same."""

import json

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pmrl_cli import Aligner
from pmrl_cli.cli.main import app
from pmrl_cli.codes.kmeans import nearest_codes

N, DIM, CODES = 240, 8, 6


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """Two modalities of one latent, the second of all but every seventh instance; and a model of them."""
    folder = tmp_path_factory.mktemp("features")
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(N, 6)) + 3 * rng.normal(size=(4, 6))[rng.integers(0, 4, N)]
    ids = [f"i{i:03d}" for i in range(N)]
    arrays = {}
    for name in ("audio", "text"):
        arrays[name] = (latent @ rng.normal(size=(6, 12)) + 0.1 * rng.normal(size=(N, 12))).astype(np.float32)
        kept = [i for i in range(N) if name == "audio" or i % 7]
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file["embedding"], file["id"] = arrays[name][kept], [ids[i] for i in kept]
        arrays[name][[i for i in range(N) if i not in kept]] = np.nan
    Aligner(dim=DIM, steps=0, adapter="linear", seed=0).fit(arrays, ids).save(folder / "model")
    return folder


def export(features, out, *options):
    paths = [str(features / f"{name}.h5") for name in ("audio", "text")]
    command = ["export", *paths, "--model", str(features / "model"), "-o", str(out), "-q", *options]
    return CliRunner().invoke(app, command)


def done(features, out, *options):
    result = export(features, out, *options)
    assert result.exit_code == 0, result.exception
    return out


@pytest.fixture(scope="module")
def whole(features, tmp_path_factory):
    return done(features, tmp_path_factory.mktemp("whole") / "out")


@pytest.fixture(scope="module")
def coded(features, tmp_path_factory):
    return done(features, tmp_path_factory.mktemp("coded") / "out", "--codes", str(CODES), "--keep-channels", "5")


def test_a_code_is_the_nearest_of_the_codebook_to_the_whole_vector(whole, coded):
    codebook = np.load(coded / "codebook.npy")
    assert codebook.shape == (CODES, DIM)
    for name in ("audio", "text"):
        vectors = np.array(pq.read_table(whole / name)["embedding"].to_pylist(), dtype=np.float32)
        table = pq.read_table(coded / name)
        assert table.schema.field("code").type == pa.int32()
        assert table["code"].to_pylist() == nearest_codes(vectors, codebook).tolist()
    assert "code" not in pq.read_table(coded / "fused").schema.names


def test_kept_channels_are_those_of_the_manifest_at_unit_length(whole, coded):
    manifest = json.loads((coded / "manifest.json").read_text())
    channels = manifest["compressed"]["channels"]
    assert manifest["compressed"] == {"dim": DIM, "codes": CODES, "channels": channels}
    assert manifest["dim"] == len(channels) == 5
    assert "codebook.npy" in manifest["files"]
    for name in ("audio", "text", "fused"):
        vectors = np.array(pq.read_table(whole / name)["embedding"].to_pylist())[:, channels]
        kept = np.array(pq.read_table(coded / name)["embedding"].to_pylist())
        np.testing.assert_allclose(kept, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize("format", ["h5", "npy", "arrow"])
def test_every_format_holds_the_same_codes(features, coded, tmp_path, format):
    out = done(features, tmp_path / "out", "--codes", str(CODES), "--format", format)
    expected = dict(zip(*(pq.read_table(coded / "text")[name].to_pylist() for name in ("id", "code")), strict=True))
    if format == "h5":
        with h5py.File(out / "text.h5") as file:
            found = dict(zip(file["id"].asstr()[:].tolist(), file["code"][:].tolist(), strict=True))
    elif format == "npy":
        ids = pq.read_table(out / "ids.parquet")["id"].to_pylist()
        codes = np.load(out / "text.code.npy")[:, 0].tolist()
        found = {i: code for i, code in zip(ids, codes, strict=True) if code >= 0}
    else:
        table = pa.ipc.open_stream((out / "aligned.arrows").read_bytes()).read_all()
        rows = zip(table["id"].to_pylist(), table["text.code"].to_pylist(), strict=True)
        found = {i: code for i, code in rows if code is not None}
    assert found == expected


def test_shards_together_are_the_whole(features, coded, tmp_path):
    for shard in ("1/2", "2/2"):
        done(features, tmp_path / shard[0], "--codes", str(CODES), "--keep-channels", "5", "--shard", shard)
    both = pa.concat_tables([pq.read_table(tmp_path / index / "text") for index in "12"])
    assert both.equals(pq.read_table(coded / "text"))


def test_a_later_export_takes_codes_and_channels_of_an_earlier_one(features, coded, tmp_path):
    again = done(features, tmp_path / "out", "--like", str(coded))
    assert pq.read_table(again / "text").equals(pq.read_table(coded / "text"))
    assert (again / "codebook.npy").read_bytes() == (coded / "codebook.npy").read_bytes()


def test_what_is_written_is_read_as_features_again(coded):
    command = ["inspect", str(coded / "audio"), str(coded / "text"), "--json"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.exception
    assert [one["dim"] for one in json.loads(result.stdout)["modalities"]] == [5, 5]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--keep-channels", "9"), "1 to 8"),
        (("--codes", "500"), "too few vectors for the codebook"),
        (("--like", "WHOLE"), "no export with codes or channels"),
        (("--like", "CODED", "--codes", "6"), "--like with options of its own"),
    ],
)
def test_what_cannot_be_is_refused(features, whole, coded, tmp_path, options, sentence):
    options = [{"WHOLE": str(whole), "CODED": str(coded)}.get(option, option) for option in options]
    result = export(features, tmp_path / "out", *options)
    assert result.exit_code
    assert sentence in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_codes_of_the_model_are_written_unasked(tmp_path, features):
    arrays = {}
    for name in ("audio", "text"):
        with h5py.File(features / f"{name}.h5") as file:
            ids = file["id"].asstr()[:].tolist()
            arrays[name] = np.full((N, 12), np.nan, dtype=np.float32)
            arrays[name][[int(i[1:]) for i in ids]] = file["embedding"][:]
    settings = {"codes": CODES, "patience": 5}
    aligner = Aligner(
        objective="fcid", objective_settings=settings, dim=DIM, steps=15, adapter="linear", dropout=0.0, refit=False
    )
    aligner.fit(arrays, [f"i{i:03d}" for i in range(N)])
    aligner.save(tmp_path / "model")
    np.testing.assert_array_equal(Aligner.load(tmp_path / "model").codes, aligner.codes)
    paths = [str(features / f"{name}.h5") for name in ("audio", "text")]
    command = ["export", *paths, "--model", str(tmp_path / "model"), "-q", "-o"]
    result = CliRunner().invoke(app, [*command, str(tmp_path / "out")])
    assert result.exit_code == 0, result.exception
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "codebook.npy"), aligner.codes)
    assert "code" in pq.read_table(tmp_path / "out" / "audio").schema.names
    refused = CliRunner().invoke(app, [*command, str(tmp_path / "other"), "--codes", "9"])
    assert "model has codes of its own" in str(refused.exception)


def test_dim_writes_the_space_along_its_principal_axes(features, whole, tmp_path):
    fewer = done(features, tmp_path / "fewer", "--dim", "4")
    for name in ("audio", "text"):
        before, after = (np.stack(pq.read_table(out / name)["embedding"].to_pylist()) for out in (whole, fewer))
        along = before[:, :4]  # the model has its own eight along those axes
        np.testing.assert_allclose(after, along / np.linalg.norm(along, axis=1, keepdims=True), atol=1e-6)
    assert "cannot be reduced" in str(export(features, tmp_path / "more", "--dim", "1000").exception)
