"""What Python says of a model and what the commands say are the same numbers, of the same instances."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pmrl_cli
from pmrl_cli import Aligner
from pmrl_cli.cli.main import command_line
from pmrl_cli.data.arrays import dataset_from_arrays
from tests.simulate import simulate


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Arrays, side columns and a model that left some of them unseen; the same in files and in memory."""
    folder = tmp_path_factory.mktemp("agree")
    data = simulate(260, 2, 8, noise=0.8, group_size=2)
    arrays = {f.name: f.array for f in data.modalities}
    arrays["m0"] = np.repeat(arrays["m0"][::2], 2, axis=0)  # each vector stands in the two rows of its group
    ids = [f"id{i}" for i in range(260)]
    columns = {name: column.to_pylist() for name, column in data.columns.items()}
    columns["scene"] = [f"s{i // 3}" if i % 2 else None for i in range(260)]
    pq.write_table(pa.table({"id": ids, **columns}), folder / "side.parquet")
    for name, array in arrays.items():
        pq.write_table(pa.table({"id": ids, "features": pa.array(list(array))}), folder / f"{name}.parquet")
    aligner = Aligner(steps=0, adapter="linear", dim=8, test=0.3).fit(arrays, ids, columns=columns)
    aligner.save(folder / "model")
    return folder, arrays, ids, columns


def command(capsys, files, name, *arguments):
    folder = files[0]
    paths = [str(folder / f"{name}.parquet") for name in files[1]]
    labels = ["--labels", str(folder / "side.parquet")]
    command_line([name, *paths, *labels, "--json", "-q", *arguments], standalone_mode=False)
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("split", ["auto", "train", "all"])
@pytest.mark.parametrize("match", [None, "scene"])
def test_evaluate_of_a_model(capsys, files, split, match):
    folder, arrays, ids, columns = files
    asked = ["--model", str(folder / "model"), "--split", split, *(["--match", match] if match else [])]
    aligner = Aligner.load(folder / "model")
    found = aligner.evaluate(arrays, ids, columns=columns, split=split, match=match).as_dict()
    assert found == command(capsys, files, "evaluate", *asked)
    assert (found["label"], found["group"], found["match"]) == ("label", "group", match)
    assert match or found["repeats"]["m0"]["different"] == found["groups"] == found["instances"] / 2
    assert split != "auto" or found["scope"].endswith("of 260 instances: instances that fit never saw")


@pytest.mark.parametrize("split", ["auto", "all"])
def test_diagnose_of_a_model(capsys, files, split):
    folder, arrays, ids, columns = files
    aligner = Aligner.load(folder / "model")
    found = json.loads(json.dumps(aligner.diagnose(arrays, ids, columns=columns, split=split).as_dict()))
    said = command(capsys, files, "diagnose", "--model", str(folder / "model"), "--split", split)
    del said["inputs"]["command"]  # what was typed, which advice repeats
    for one in (said, found):
        del one["digest"]
        for finding in one["verdict"]["findings"]:
            del finding["advice"], finding["command"]
    assert found == said
    assert found["inputs"]["scope"] == aligner.rows(dataset(files), split)[1]


def dataset(files):
    _, arrays, ids, columns = files
    return dataset_from_arrays(arrays, ids, columns)


def test_evaluate_without_a_model(capsys, files):
    found = pmrl_cli.evaluate(dataset(files)).as_dict()
    assert found == command(capsys, files, "evaluate")
    assert found["scope"] == "all 260 instances, compared as they are"


def test_evaluate_of_a_model_with_classes(capsys, files):
    folder, arrays, ids, columns = files
    pandas = pytest.importorskip("pandas")
    prompts = pandas.DataFrame(arrays["m1"][:4], index=["c0", "c1", "c2", "c3"])
    table = {"id": list(prompts.index), "features": pa.array(list(prompts.to_numpy()))}
    pq.write_table(pa.table(table), folder / "prompts.parquet")
    aligner = Aligner.load(folder / "model")
    found = aligner.evaluate({"m0": arrays["m0"]}, ids, columns=columns, classes={"m1": prompts}).as_dict()
    typed = ["evaluate", str(folder / "m0.parquet"), f"m1={folder / 'prompts.parquet'}", "--classes", "m1"]
    typed += ["--labels", str(folder / "side.parquet"), "--model", str(folder / "model"), "--json", "-q"]
    assert not command_line(typed, standalone_mode=False)
    assert json.loads(capsys.readouterr().out) == found
    assert found["zero_shot"]["classes"] == 4
