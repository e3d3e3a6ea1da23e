"""Whole fits of arm and fcid: missing modalities, resumed runs, model folders, and worlds of several processes."""

import json

import numpy as np
import pyarrow as pa
import pytest

from pmrl_cli import Aligner
from pmrl_cli.data.dataset import Dataset
from pmrl_cli.fit.context import Hooks
from pmrl_cli.train.loop import Interrupted
from tests.distributed.processes import in_processes
from tests.simulate import simulate

SETTINGS = {
    name: {
        "objective": name,
        "steps": 30,
        "batch_size": 32,
        "dropout": 0.0,
        "dim": 8,
        "seed": 1,
        "adapter": "linear",
        **more,
    }
    for name, more in (
        ("arm", {"target": "class"}),
        ("fcid", {"objective_settings": {"codes": 8, "patience": 5}}),
    )
}
EITHER = pytest.mark.parametrize("name", SETTINGS)


def data():
    made = simulate(n=200, noise=0.3, dim=12, missing=0.2)
    classes = np.array(made.columns["label"].to_pylist(), dtype=object)
    classes[::7] = None
    return Dataset(made.ids, made.modalities, made.present, {"class": pa.array(classes)})


@EITHER
def test_a_model_is_read_back_with_what_it_learned_besides(name, tmp_path):
    aligner = Aligner(**SETTINGS[name]).fit(data())
    again = Aligner.load(aligner.save(tmp_path / "model"))
    for block, same in zip(aligner.embed(data()), again.embed(data()), strict=True):
        np.testing.assert_array_equal(block.embeddings, same.embeddings)
        np.testing.assert_array_equal(block.fused, same.fused)
        assert not block.embeddings[~block.present].any()
    if name == "fcid":
        np.testing.assert_array_equal(again.codes, aligner.codes)
        assert aligner.codes.shape == (8, 8)
    assert len(json.loads(aligner.texts["config.json"])["members"]) == 1


@EITHER
def test_it_resumes_bit_for_bit(name, tmp_path):
    settings = SETTINGS[name] | {"refit": False}
    whole = Aligner(**settings).fit(data())
    calls = iter(range(10**6))
    with pytest.raises(Interrupted):
        Aligner(**settings).fit(data(), checkpoint=tmp_path, hooks=Hooks(should_stop=lambda: next(calls) == 9))
    resumed = Aligner(**settings).fit(data(), checkpoint=tmp_path)
    assert whole.texts["history.csv"] == resumed.texts["history.csv"]
    for modality, vectors in whole.transform(data()).items():
        np.testing.assert_array_equal(resumed.transform(data())[modality], vectors)


def fitted(processes):
    found = {}
    for name, settings in SETTINGS.items():
        aligner = Aligner(**settings | {"refit": False}).fit(data(), processes=processes)
        found[name] = {"vectors": aligner.transform(data()), "codes": aligner.codes}
    return found


def test_two_processes_find_what_one_finds():
    alone = {name: Aligner(**settings | {"refit": False}).fit(data()) for name, settings in SETTINGS.items()}
    for of_process in in_processes(fitted, 2):
        for name, aligner in alone.items():
            for modality, vectors in aligner.transform(data()).items():
                np.testing.assert_allclose(of_process[name]["vectors"][modality], vectors, atol=1e-3)
            if aligner.codes is not None:
                np.testing.assert_allclose(of_process[name]["codes"], aligner.codes, atol=1e-3)
