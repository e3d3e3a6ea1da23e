"""Whole fits of the systems with missing modalities, in worlds of one and two processes, and what fcid stores."""

import numpy as np
import pyarrow as pa
import pytest

from pmrl_cli import Aligner
from pmrl_cli.data.dataset import Dataset
from tests.distributed.processes import in_processes
from tests.simulate import simulate

# A joint encoder draws its views in the process that holds the instance: without views, it draws nothing.
OF_EACH = {
    "arm": {"target": "class"},
    "drcl": {"target": "class"},
    "fcid": {"objective_settings": {"codes": 8, "patience": 5}},
    "umurl": {"objective_settings": {"noise": 0.0, "left_out": 0.0}},
    "mvae": {},
}


# The first steps of AdamW are as long for a gradient that is nothing but rounding, which processes do not share.
ROUGHLY = {"drcl": 0.03, "mvae": 0.03}


def data():
    made = simulate(n=140, noise=0.3, dim=12, missing=0.2)
    classes = np.array(made.columns["label"].to_pylist(), dtype=object)
    classes[::7] = None
    return Dataset(made.ids, made.modalities, made.present, {"class": pa.array(classes)})


def fit(name, processes=None):
    settings = {"steps": 3, "batch_size": 32, "dropout": 0.0, "dim": 8, "seed": 1, "adapter": "linear"}
    aligner = Aligner(objective=name, refit=False, trained=True, device="cpu", **settings, **OF_EACH[name])
    return aligner.fit(data()) if processes is None else aligner.fit(data(), processes=processes)


@pytest.fixture(scope="module")
def alone():
    return {name: fit(name) for name in OF_EACH}


def test_codes_are_stored_and_vectors_of_absent_modalities_are_none(alone, tmp_path):
    aligner = alone["fcid"]
    again = Aligner.load(aligner.save(tmp_path / "model"))
    np.testing.assert_array_equal(again.codes, aligner.codes)
    assert aligner.codes.shape == (8, 8)
    for block in again.embed(data()):
        assert not block.embeddings[~block.present].any()


def fitted(processes):
    made = {name: fit(name, processes) for name in OF_EACH}
    return {name: {"vectors": one.transform(data()), "codes": one.codes} for name, one in made.items()}


def test_two_processes_find_what_one_finds(alone):
    for of_process in in_processes(fitted, 2):
        for name, aligner in alone.items():
            for modality, vectors in aligner.transform(data()).items():
                found, within = of_process[name]["vectors"][modality], ROUGHLY.get(name, 1e-3)
                np.testing.assert_allclose(found, vectors, atol=within, err_msg=name)
            if aligner.codes is not None:
                np.testing.assert_allclose(of_process[name]["codes"], aligner.codes, atol=1e-3)
