"""The folder of a model, beside what it was fitted on."""

import json

import numpy as np
import pytest

from pmrl_cli import Aligner, read_dataset
from pmrl_cli.errors import StateError
from pmrl_cli.files.artifacts.model import SPLIT, read_model
from pmrl_cli.files.artifacts.store import ingest_store


def test_a_model_and_the_store_it_was_fitted_on_have_one_digest_of_their_ids(tmp_path):
    generator = np.random.default_rng(0)
    for name in ("image", "text"):
        np.savez(tmp_path / f"{name}.npz", ids=[f"i{i}" for i in range(60)], x=generator.normal(size=(60, 4)))
    store = ingest_store([str(tmp_path / "image.npz"), str(tmp_path / "text.npz")], tmp_path / "store")
    aligner = Aligner(steps=0, refit=False).fit(read_dataset([str(tmp_path / "store")]))
    manifest = json.loads((aligner.save(tmp_path / "model") / "manifest.json").read_text())
    assert manifest["inputs"]["ids"] == store["ids"]["digest"]


def test_the_split_of_every_instance_stays_on_disk_until_a_loaded_model_is_saved(tmp_path):
    generator = np.random.default_rng(0)
    features = {name: generator.normal(size=(60, 4)).astype(np.float32) for name in ("image", "text")}
    first = Aligner(steps=0, refit=False).fit(features).save(tmp_path / "first")
    loaded = Aligner.load(first)
    assert SPLIT not in read_model(first)[0]
    assert loaded.in_dims(2).texts[SPLIT] == (first / SPLIT).read_text()
    again = loaded.save(tmp_path / "again")
    assert {path.name for path in again.iterdir()} == {path.name for path in first.iterdir()}
    assert (again / SPLIT).read_bytes() == (first / SPLIT).read_bytes()

    (first / SPLIT).write_text("id,part\n")
    with pytest.raises(StateError, match="changed"):
        loaded.save(tmp_path / "changed")
    with pytest.raises(StateError, match="changed"):
        Aligner.load(first)
