"""A method that only this file knows: it trains, resumes, is saved, read back and exported, and is in the help.

Its encoder has an output of its own, it needs labels, and minimises two terms. Nothing but the two lines of the
registries, which a method in the package has too, says that it is there.
"""

import json
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn
from torch.nn import functional
from typer.testing import CliRunner

from pmrl_cli import encoders, methods
from pmrl_cli.aligner import Aligner
from pmrl_cli.batch import SINGLE, Encoded, Loss
from pmrl_cli.cli.main import app
from pmrl_cli.data.dataset import Dataset
from pmrl_cli.encoders.protocol import Encoder
from pmrl_cli.errors import UsageError
from pmrl_cli.files.join.dataset import read_dataset
from pmrl_cli.fit.context import Hooks
from pmrl_cli.methods import Entry
from pmrl_cli.methods.protocol import Method, setting
from pmrl_cli.terms.contrast import PairwiseContrast
from pmrl_cli.terms.protocol import Term
from pmrl_cli.train.loop import Interrupted
from tests.train.fits import simulate


class TwoHeads(Encoder):
    """Linear maps to the shared space, and linear heads to what is a modality's own."""

    def __init__(self, maps, width):
        super().__init__()
        self.shared = nn.ParameterList(m.clone() for m in maps)
        self.own = nn.ParameterList(0.1 * torch.randn(len(m), width) for m in maps)

    def forward(self, inputs):
        def heads(weights):
            outputs = [c @ weight for c, weight in zip(inputs.components, weights, strict=True)]
            return functional.normalize(torch.stack(outputs, 1), dim=2)

        return Encoded(heads(self.shared), inputs.present, {"unique": heads(self.own)})

    def state(self):
        return {"heads": len(self.own)}, {name: tensor.detach() for name, tensor in self.named_parameters()}

    @classmethod
    def from_state(cls, config, tensors):
        maps = [tensors[f"shared.{m}"] for m in range(config["heads"])]
        encoder = cls(maps, tensors["own.0"].shape[1])
        encoder.load_state_dict(dict(tensors))
        return encoder.eval()


class Classes(Term):
    """Cross-entropy of the labels that are known, read linearly off the own heads."""

    def __init__(self, width, classes):
        super().__init__()
        self.read = nn.Linear(width, classes)
        self.seen = set()

    def forward(self, encoded, inputs, group=SINGLE):
        self.seen |= set(inputs.labels.tolist())
        known = (inputs.labels >= 0)[:, None] & encoded.present
        logits = self.read(encoded.extra["unique"])[known]
        labels = inputs.labels[:, None].expand_as(known)[known]
        value = functional.cross_entropy(logits, labels, reduction="sum") / max(len(labels), 1)
        return Loss(value, {"classes": value.detach()})


class Eleventh(Method):
    """Contrast in the shared space, classes in the own ones."""

    needs = frozenset({"labels"})
    closed_form_stands_in = False

    @dataclass(frozen=True)
    class Settings:
        width: int = setting(3, "dimensions of the own heads", low=1)
        weight: float = setting(0.5, "of the classes", low=0)

    def encoder(self, init):
        self.classes = init.classes
        return TwoHeads(init.maps, self.settings.width)

    def terms(self):
        return [(1.0, PairwiseContrast()), (self.settings.weight, Classes(self.settings.width, 3))]


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(methods.REGISTRY, "eleventh", Entry(__name__, "Eleventh", "contrast and classes"))
    monkeypatch.setitem(encoders.REGISTRY, "two-heads", f"{__name__}:TwoHeads")


@pytest.fixture(scope="module")
def data():
    data = simulate(n=200, noise=0.1)
    classes = np.where(data.modalities[0].array[:, 0] > 0, "yes", "no").astype(object)
    classes[::7] = None
    return Dataset(data.ids, data.modalities, data.present, {"class": pa.array(classes)})


MADE = {}
SETTINGS = {
    "objective": "eleventh",
    "target": "class",
    "steps": 20,
    "batch_size": 32,
    "dropout": 0.0,
    "seed": 1,
    "adapter": "linear",
}


@pytest.fixture
def trained(data):
    if "model" not in MADE:  # once: the registry is patched for one test at a time
        MADE["model"] = Aligner(**SETTINGS, objective_settings={"width": 4}).fit(data)
    return MADE["model"]


def test_it_trains_and_its_model_is_read_back_with_its_own_output(trained, data, tmp_path):
    aligner = trained
    again = Aligner.load(aligner.save(tmp_path / "model"))
    for block, same in zip(aligner.embed(data), again.embed(data), strict=True):
        assert block.extra["unique"].shape[1] == 3
        assert block.extra["unique"].shape[2] % 4 == 0
        np.testing.assert_array_equal(block.extra["unique"], same.extra["unique"])
        np.testing.assert_array_equal(block.embeddings, same.embeddings)
        assert not block.extra["unique"][~block.present].any()
        np.testing.assert_allclose(np.linalg.norm(block.extra["unique"][block.present], axis=1), 1, atol=1e-5)


def test_it_never_ends_as_its_start_nor_beside_another(data):
    aligner = Aligner(**SETTINGS | {"steps": 2, "learning_rate": 1e-9, "dropout": None}).fit(data)
    (member,) = json.loads(aligner.texts["config.json"])["members"]
    assert member["best_step"] == 2
    with pytest.raises(UsageError, match="without a closed form: steps=0"):
        Aligner(**SETTINGS | {"steps": 0})


def test_it_resumes_bit_for_bit(data, tmp_path):
    whole = Aligner(**SETTINGS).fit(data)
    calls = iter(range(10**6))
    with pytest.raises(Interrupted):
        Aligner(**SETTINGS).fit(data, checkpoint=tmp_path, hooks=Hooks(should_stop=lambda: next(calls) == 9))
    resumed = Aligner(**SETTINGS).fit(data, checkpoint=tmp_path)
    for name, vectors in whole.transform(data).items():
        np.testing.assert_array_equal(resumed.transform(data)[name], vectors)
    assert whole.texts["history.csv"] == resumed.texts["history.csv"]


@pytest.mark.parametrize("format_", ["parquet", "h5", "npy", "arrow"])
def test_its_own_output_is_exported_beside_the_embeddings(trained, data, tmp_path, format_):
    trained.save(tmp_path / "model")
    for features, has in zip(data.modalities, data.present.T, strict=True):
        np.save(tmp_path / f"{features.name}.npy", np.where(has[:, None], features.array, np.nan))
    files = [str(tmp_path / f"{name}.npy") for name in data.names]
    out = tmp_path / "out"
    asked = ["--model", str(tmp_path / "model"), "-o", str(out), "--also", "unique", "--format", format_]
    result = CliRunner().invoke(app, ["export", *files, *asked])
    assert result.exit_code == 0, result.output
    dataset = read_dataset(files)
    expected = np.concatenate([block.extra["unique"] for block in trained.embed(dataset)])
    if format_ == "arrow":
        with pa.OSFile(str(out / "aligned.arrows")) as file:
            table = pa.ipc.open_stream(file).read_all()
        found = {
            name: np.stack([np.zeros(4) if row is None else row for row in table[name].to_pylist()])
            for name in table.column_names
            if name.endswith("unique")
        }
    else:
        assert read_dataset(out).names == data.names  # what lies beside the embeddings is named
        ending = {"parquet": "", "h5": ".h5", "npy": ".npy"}[format_]
        own = [f"{name}.unique={out}/{name}.unique{ending}" for name in data.names]
        export = read_dataset(own, on_bad="missing")  # npy has zeros for what is absent
        row = {instance: index for index, instance in enumerate(dataset.ids.to_pylist())}
        expected = expected[[row[instance] for instance in export.ids.to_pylist()]]
        found = {f.name: f.read(slice(None)) for f in export.modalities}
    assert {f"{name}.unique" for name in data.names} <= found.keys()
    for m, name in enumerate(data.names):
        np.testing.assert_allclose(found[f"{name}.unique"], expected[:, m], atol=1e-5)
    refused = CliRunner().invoke(app, ["export", *files, *asked[:2], "-o", str(out), "--also", "colour"])
    assert "colour, expected one of unique" in str(refused.exception)


def test_it_is_in_the_help():
    line = f'methods.REGISTRY["eleventh"] = methods.Entry("{__name__}", "Eleventh", "contrast and classes")'
    code = f"from pmrl_cli import methods; {line}; from pmrl_cli.cli.main import app; app(['fit', '--help'])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "eleventh" in shown.stdout


def test_missing_labels_are_an_error_before_any_work_is_done():
    with pytest.raises(UsageError, match="objective needs labels.*expected target"):
        Aligner(**SETTINGS | {"target": None})
