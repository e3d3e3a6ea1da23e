"""The folder of a model, beside what it was fitted on."""

import json

import numpy as np

from pmrl_cli import Aligner, read_dataset
from pmrl_cli.files.artifacts.store import ingest_store


def test_a_model_and_the_store_it_was_fitted_on_have_one_digest_of_their_ids(tmp_path):
    generator = np.random.default_rng(0)
    for name in ("image", "text"):
        np.savez(tmp_path / f"{name}.npz", ids=[f"i{i}" for i in range(60)], x=generator.normal(size=(60, 4)))
    store = ingest_store([str(tmp_path / "image.npz"), str(tmp_path / "text.npz")], tmp_path / "store")
    aligner = Aligner(steps=0, refit=False).fit(read_dataset([str(tmp_path / "store")]))
    manifest = json.loads((aligner.save(tmp_path / "model") / "manifest.json").read_text())
    assert manifest["inputs"]["ids"] == store["ids"]["digest"]
