"""ONNX graphs make the vectors of ``transform``, for every kind of member."""

import numpy as np
import pytest
import torch

from pmrl_cli import Aligner
from pmrl_cli.model.onnx_graph import ModalityGraph

SETTINGS = {
    "linear": {"adapter": "linear", "steps": 0},
    "mlp": {"adapter": "mlp", "steps": 10},
    "kernel": {"adapter": "kernel", "steps": 10},
    "ensemble": {"steps": 10},
    "reduced": {"steps": 10, "dim": 5},
    "squashed": {"fast": True},
    "joint encoder": {"objective": "umurl", "steps": 10},
}


@pytest.fixture(scope="module", params=SETTINGS)
def fitted(request):
    """A model, and features it was not fitted on."""
    generator = np.random.default_rng(0)
    latent = generator.normal(size=(260, 5))
    arrays = {
        name: (latent @ generator.normal(size=(5, dim)) + generator.normal(size=(260, dim))).astype(np.float32)
        for name, dim in (("a", 12), ("b", 9))
    }
    aligner = Aligner(**SETTINGS[request.param]).fit({name: array[:200] for name, array in arrays.items()})
    return aligner, {name: array[200:] for name, array in arrays.items()}


def test_the_graph_in_torch_makes_the_vectors_of_one_modality_alone(fitted):
    aligner, arrays = fitted
    for m, name in enumerate(aligner.names):
        graph = ModalityGraph(aligner.model.members, m, aligner.model.reduction).eval()
        with torch.no_grad():
            found = graph(torch.from_numpy(arrays[name])).numpy()
        np.testing.assert_allclose(found, aligner.transform({name: arrays[name]})[name], atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_the_written_graph_makes_them_for_any_number_of_rows(fitted, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    aligner, arrays = fitted
    aligner.write_onnx(tmp_path)
    for name, array in arrays.items():
        session = runtime.InferenceSession(tmp_path / f"{name}.onnx")
        for rows in (1, 3, 60):
            (found,) = session.run(None, {"features": array[:rows]})
            np.testing.assert_allclose(found, aligner.transform({name: array[:rows]})[name], atol=1e-5)
