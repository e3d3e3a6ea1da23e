"""From planted swaps to a list of suspects, and from the list to a fit without them."""

import json
import re

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest

from pmrl_cli.errors import UsageError

NAMES = ("a", "b", "c")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three modalities of 500 instances, of which 25 have the vector of modality b of another."""
    folder = tmp_path_factory.mktemp("swaps")
    generator = np.random.default_rng(0)
    latent = generator.normal(size=(500, 32))
    swapped = generator.permutation(500)[:25]
    for name in NAMES:
        vectors = (latent + 0.4 * generator.normal(size=latent.shape)).astype(np.float32)
        if name == "b":
            vectors[swapped] = vectors[np.roll(swapped, 1)]
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file["features"], file["id"] = vectors, [f"i{i}".encode() for i in range(500)]
    np.save(folder / "swapped.npy", swapped)
    return folder


def files_of(folder):
    return [str(folder / f"{name}.h5") for name in NAMES]


def test_planted_swaps_are_listed_with_their_modality_and_left_out_of_a_fit(folder, run, tmp_path):
    listed, every = tmp_path / "suspects.csv", tmp_path / "instances.parquet"
    code, out, err = run(
        "diagnose", *files_of(folder), "--suspects", listed, "--per-instance", every, "--json", "--threads", 1
    )
    assert code == 0
    swapped = {f"i{i}" for i in np.load(folder / "swapped.npy")}
    lines = [line.split(",") for line in listed.read_text().splitlines()]
    assert lines[0] == ["id", "modality", "score", "probability"]
    count = len(lines) - 1
    assert count > 15
    assert {line[0] for line in lines[1:]} <= swapped  # no false positives; a few swaps resemble their partners
    assert {line[1] for line in lines[1:]} == {"b"}
    scores = [float(line[2]) for line in lines[1:]]
    assert scores == sorted(scores, reverse=True)
    assert f"note: {count} suspects in {listed}" in err

    table = pq.read_table(every).to_pydict()
    assert len(table["id"]) == 500
    ranked = [table["id"][i] for i in np.argsort(table["score"])[::-1]]
    assert set(ranked[:25]) == swapped
    assert {one["id"] for one in json.loads(out)["suspects"]["top"][:25]} == swapped

    options = ("--steps", 0, "--dim", 8, "--threads", 1, "--test", 0.2, "-o")
    code, _, err = run("fit", *files_of(folder), "--exclude", listed, *options, tmp_path / "model")
    assert code == 0
    assert f"note: {count} vectors of {count} instances are on {listed}" in err
    metrics = json.loads((tmp_path / "model" / "metrics.json").read_text())
    card = (tmp_path / "model" / "README.md").read_text()
    left_out = metrics["excluded.vectors"]
    assert count / 2 < left_out <= count  # those dealt to the test part stay there
    assert f"{left_out} vectors of {left_out} instances were left out of both (--exclude)" in card


def test_with_two_modalities_the_pair_is_suspect_and_left_out(folder, run, tmp_path):
    listed = tmp_path / "suspects.csv"
    run("diagnose", *files_of(folder)[:2], "--suspects", listed, "-q", "--threads", 1)
    lines = listed.read_text().splitlines()[1:]
    assert len(lines) > 15
    assert {line.split(",")[1] for line in lines} == {"a|b"}
    _, _, err = run(
        "fit", *files_of(folder)[:2], "--exclude", listed, "--steps", 0, "--threads", 1, "-o", tmp_path / "model"
    )
    assert re.search(rf"note: {2 * len(lines)} vectors of {len(lines)} instances", err)


def test_modalities_of_different_columns_have_no_suspects(folder, run, tmp_path):
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["features"] = np.random.default_rng(1).normal(size=(500, 9)).astype(np.float32)
        file["id"] = [f"i{i}".encode() for i in range(500)]
    with pytest.raises(UsageError, match="instances cannot be scored one by one"):
        run("diagnose", folder / "a.h5", tmp_path / "d.h5", "--suspects", tmp_path / "s.csv", "-q")
    assert not (tmp_path / "s.csv").exists()
