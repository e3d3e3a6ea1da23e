"""The section ``contribution``: the information of modalities on a label, in a diagnosis and on its screen."""

import json
from pathlib import Path

import jsonschema
import numpy as np
import pyarrow as pa
import pytest

from pmrl_cli.cli.diagnose_screen import lines
from pmrl_cli.cli.diagnose_tables import contribution
from pmrl_cli.data.dataset import Dataset
from pmrl_cli.diagnosis import diagnose
from pmrl_cli.diagnosis.contribution import contribution_section
from pmrl_cli.errors import DataError, UsageError
from pmrl_cli.information import heads
from pmrl_cli.stats.statistic import plain
from tests.simulate import dataset_of

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "diagnose.schema.json").read_text(encoding="utf-8"))


def labelled(n=300, seed=0):
    """``a`` depends on the class, ``b`` does not; of ``rare`` one class is rare and some rows have none."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 2, n)
    vectors = {"a": rng.normal(size=(n, 6)) + 2.0 * classes[:, None], "b": rng.normal(size=(n, 6))}
    rare: list[str | None] = [f"c{c}" for c in classes]
    rare[:5], rare[5:12] = ["other"] * 5, [None] * 7
    columns = {"class": [f"c{c}" for c in classes], "rare": rare, "unit": [f"g{i // 25}" for i in range(n)]}
    data = dataset_of(vectors)
    return Dataset(data.ids, data.modalities, data.present, {name: pa.array(c) for name, c in columns.items()})


@pytest.fixture(autouse=True, scope="module")
def few_steps():
    """A quarter of the steps: what is stated here holds after them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heads, "_STEPS", 100)
        yield


@pytest.fixture(scope="module")
def diagnosed(few_steps):
    return diagnose(labelled(), target="class").as_dict()


def test_the_informative_modality_is_named_with_an_interval(diagnosed):
    found = diagnosed["contribution"]
    assert found["entropy"] == pytest.approx(np.log(2), abs=0.02)
    a, b = found["modality"]["a"], found["modality"]["b"]
    assert a["alone"]["ci"][0] > 0.5
    assert abs(b["alone"]["value"]) < 0.02
    assert abs(b["conditional"]["value"]) < 0.02
    assert a["shapley"]["value"] + b["shapley"]["value"] == pytest.approx(found["all"]["value"])
    assert all(number["chance"] == 0 for row in (a, b) for number in row.values())


def test_it_is_of_the_schema_and_on_the_screen(diagnosed):
    jsonschema.Draft202012Validator(SCHEMA).validate(diagnosed)
    shown = lines({**diagnosed, "inputs": {**diagnosed["inputs"], "scope": "all"}}, 100)
    assert any(line.startswith("Information of each modality on class") for line in shown)
    assert not any("Not estimated" in line for line in shown)


def test_it_is_there_only_if_asked_for():
    assert "contribution" not in diagnose(labelled(60)).as_dict()


def test_rows_without_a_common_class_are_left_out_and_counted():
    found = plain(contribution_section(labelled(), "rare"))
    assert found["left_out"] == {"without_class": 7, "of_rare_classes": 5}
    assert found["classes"] == 2
    assert found["predicted_from"] == 288


def test_intervals_are_by_group(diagnosed):
    alone, grouped = (
        found["all"]["ci"]
        for found in (diagnosed["contribution"], plain(contribution_section(labelled(), "class", "unit")))
    )
    assert alone[1] - alone[0] != grouped[1] - grouped[0]


def test_too_few_complete_instances_have_no_number():
    data = labelled(60)
    present = data.present.copy()
    present[40:, 1] = False
    found = plain(contribution_section(Dataset(data.ids, data.modalities, present, data.columns), "class"))
    assert found["all"]["status"] == "n_too_small"
    assert found["all"]["n"] == 40
    assert found["entropy"] is None
    said = " ".join(contribution({"contribution": found}, 60))
    assert "Not estimated: 40 instances have all modalities" in said
    assert "50 are needed" in said


def test_a_column_without_classes_is_refused():
    data = labelled(60)
    data = Dataset(data.ids, data.modalities, data.present, {"each": pa.array([str(i) for i in range(60)])})
    with pytest.raises(DataError, match="no classes to predict"):
        contribution_section(data, "each")
    with pytest.raises(UsageError, match="no such side column"):
        contribution_section(data, "none")
