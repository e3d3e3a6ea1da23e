"""Networks of random weights are tried where instances are many beside columns, and kept where they rank best."""

import json

import numpy as np

from pmrl_cli import Aligner
from pmrl_cli.fit.networks import DIM

NAME = "linear network dropout 0.3"


def features(columns, rows=500, seed=0):
    """The second modality shows the signs and squares of what the first shows: nothing of it is linear in that."""
    rng = np.random.default_rng(0)
    mixing = [rng.standard_normal((n, columns)) for n in (2, 3)]
    latent = np.random.default_rng(seed + 1).standard_normal((rows, 2))
    shown = (latent, np.stack([latent[:, 0] * latent[:, 1], *np.square(latent.T)], axis=1))
    noise = np.random.default_rng(seed + 2).standard_normal((2, rows, columns))
    return {f"m{m}": shown[m] @ mixing[m] + 0.05 * noise[m] for m in range(2)}


def fitted(columns, steps=90):
    return Aligner(adapter="mlp", steps=steps, test=0.2, dropout=None, device="cpu").fit(features(columns))


def test_a_network_is_tried_beside_few_columns_and_repeated_as_one(tmp_path):
    aligner = fitted(4)
    members = json.loads(aligner.texts["config.json"])["members"]
    (network,) = [member for member in members if member["network"]]
    assert network["stage"] == NAME
    assert network["dim"] == DIM
    history = [line.split(",")[0] for line in aligner.texts["history.csv"].splitlines()[1:]]
    assert history.count(f"refit {NAME}") >= 1
    metrics = json.loads(aligner.texts["metrics.json"])
    assert metrics["held_out.mrr"] > 1.5 * metrics["start.mrr"]
    new = features(4, rows=40, seed=5)
    vectors = aligner.transform(new)
    right = (vectors["m0"] @ vectors["m1"].T).argsort(axis=1)[:, -5:] == np.arange(40)[:, None]
    assert right.any(axis=1).mean() > 0.5
    loaded = Aligner.load(aligner.save(tmp_path / "model"))
    np.testing.assert_allclose(loaded.transform(new)["m1"], vectors["m1"], atol=1e-6)


def test_none_is_tried_beside_many_columns():
    assert NAME not in fitted(16, steps=5).texts["README.md"]
