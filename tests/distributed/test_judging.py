"""Several processes that judge one data set find what one finds."""

import math

import numpy as np
import pytest

from pmrl_cli.aligner import Aligner
from pmrl_cli.diagnosis import diagnose_state, state_of
from pmrl_cli.diagnosis.run import StateSampling
from pmrl_cli.process_group import SINGLE_PROCESS
from pmrl_cli.retrieval import evaluate
from tests.distributed.processes import in_processes
from tests.train.fits import simulate


def judged(processes, folder):
    """Embeddings, evaluation, and the diagnosis where rank 0 has it."""
    data = simulate(n=203, missing=0.3)
    data.modalities[0].array[100:140] = data.modalities[0].array[:40]  # several right answers
    aligned = Aligner.load(folder).embed_dataset(data, np.arange(0, 203, 2), processes=processes)
    evaluation = evaluate(aligned, processes=processes).as_dict()
    state = state_of(aligned, sampling=StateSampling(64, 64), processes=processes)
    diagnosis = diagnose_state(state, aligned).result if processes.rank == 0 else None
    return [features.array for features in aligned.modalities], evaluation, diagnosis


def assert_close(found, wanted, path=""):
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys(), path
        for key in wanted:
            assert_close(found[key], wanted[key], f"{path}.{key}")
    elif isinstance(wanted, list | tuple):
        assert len(found) == len(wanted), path
        for i, (one, other) in enumerate(zip(found, wanted, strict=True)):
            assert_close(one, other, f"{path}.{i}")
    elif isinstance(wanted, float):
        assert math.isclose(found, wanted, rel_tol=1e-6, abs_tol=1e-9), (path, found, wanted)
    else:
        assert found == wanted, path


@pytest.mark.parametrize("size", [2, 4])
def test_several_processes_find_what_one_finds(tmp_path, size):
    Aligner(adapter="linear", steps=0, seed=0).fit(simulate(n=203, missing=0.3)).save(tmp_path / "model")
    arrays, evaluation, diagnosis = judged(SINGLE_PROCESS, tmp_path / "model")
    found = in_processes(judged, size, tmp_path / "model")
    for own_arrays, own_evaluation, _ in found:
        for one, other in zip(own_arrays, arrays, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)
        assert_close(own_evaluation, evaluation)
    assert_close(found[0][2], diagnosis)
