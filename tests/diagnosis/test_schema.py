"""What diagnose says is what docs/diagnose.schema.json describes."""

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from pmrl_cli.diagnosis import diagnose
from tests.simulate import dataset_of, simulate

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "diagnose.schema.json").read_text(encoding="utf-8"))


def cases():
    generator = np.random.default_rng(0)
    apart = {name: generator.normal(size=(120, dim)) for name, dim in (("a", 4), ("b", 7), ("c", 3))}
    return {
        "three": (simulate(150, 3, 8, missing=0.2, group_size=3), {"group": "group", "label": "label"}),
        "two": (simulate(60, 2, 8), {}),
        "apart": (dataset_of(apart), {}),
        "one instance": (dataset_of({name: np.eye(1, 4) for name in "ab"}), {}),
        "points": (dataset_of({name: np.ones((50, 3)) for name in "abc"}), {}),
        "one column": (dataset_of({name: generator.normal(size=(50, 1)) for name in "ab"}), {}),
        "zeros": (dataset_of({"a": np.zeros((50, 3)), "b": generator.normal(size=(50, 3))}), {}),
    }


@pytest.mark.parametrize("case", cases())
def test_every_diagnosis_is_of_the_schema_and_of_json(case):
    data, options = cases()[case]
    result = json.loads(json.dumps(diagnose(data, **options).as_dict(), allow_nan=False))
    jsonschema.Draft202012Validator(SCHEMA).validate(result)


def test_the_schema_is_a_schema_and_refuses_what_is_not_described():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    result = diagnose(simulate(60, 2, 8)).as_dict()
    result["modality"]["m0"]["loading"]["status"] = "fine"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(SCHEMA).validate(result)
