"""Saved diagnoses: read as they were written, and refused when a digit has changed."""

import json
import re

import numpy as np
import pytest

from pmrl_cli.data.json_digest import digest_of, with_digest
from pmrl_cli.diagnosis import diagnose
from pmrl_cli.errors import DataError, StateError
from pmrl_cli.files.artifacts.diagnoses import read_diagnosis
from tests.simulate import simulate


@pytest.fixture(scope="module")
def text():
    return json.dumps(diagnose(simulate(60, 2, 4)).as_dict())


def test_what_was_written_is_read_whatever_its_white_space_and_order(text, tmp_path):
    path = tmp_path / "d.json"
    path.write_text(json.dumps(json.loads(text), indent=3, sort_keys=True))
    assert read_diagnosis(path) == json.loads(text)


def test_every_digit_that_is_changed_is_refused(text, tmp_path):
    places = [match.start() for match in re.finditer(r"\d", text)]
    path = tmp_path / "d.json"
    for place in np.random.default_rng(0).choice(places, 200, replace=False):
        changed = text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :]
        if json.loads(changed) == json.loads(text):  # beyond what a float holds
            continue
        path.write_text(changed)
        with pytest.raises((StateError, DataError)):
            read_diagnosis(path)


def test_version_one_is_read_without_a_digest_and_version_two_not(text, tmp_path):
    path = tmp_path / "d.json"
    result = json.loads(text)
    del result["digest"]
    path.write_text(json.dumps(result))
    with pytest.raises(StateError, match="changed since it was written"):
        read_diagnosis(path)
    path.write_text(json.dumps(result | {"schema": "pmrl.diagnose/1"}))
    assert read_diagnosis(path)["outcomes"] == result["outcomes"]


def test_a_digest_is_checked_whatever_the_schema_says_and_no_number_is_refused(text, tmp_path):
    path = tmp_path / "d.json"
    path.write_text(text.replace("pmrl.diagnose/2", "pmrl.diagnose/1"))
    with pytest.raises(StateError, match="changed since it was written"):
        read_diagnosis(path)
    path.write_text(json.dumps(json.loads(text) | {"digest": float("nan")}))
    with pytest.raises(DataError, match="NaN is no JSON number"):
        read_diagnosis(path)


def test_a_digest_is_that_of_the_rest():
    one = with_digest({"b": 1.0, "a": [None, "x"]})
    assert digest_of(one) == one["digest"] == digest_of({"a": [None, "x"], "b": 1.0})
    assert digest_of({"a": 1}) != digest_of({"a": 2})
