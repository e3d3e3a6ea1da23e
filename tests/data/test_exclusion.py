import numpy as np
import pyarrow as pa
import pytest

from pmrl_cli.data.exclusion import Exclusions
from pmrl_cli.errors import DataError
from tests.simulate import dataset_of


def mask(rows, data):
    ids, modalities = zip(*rows, strict=True)
    return Exclusions("list.csv", pa.array(ids, pa.large_string()), modalities).mask(data)


@pytest.fixture
def data():
    present = np.array([[1, 1, 1], [1, 1, 0], [1, 1, 1], [0, 1, 1]], dtype=bool)
    return dataset_of({name: np.ones((4, 2)) for name in ("a", "b", "c")}, present=present)


def test_a_modality_a_pair_or_the_whole_instance_is_left_out(data):
    found = mask([("id0", "b"), ("id1", None), ("id2", "a|c"), ("id2", "b"), ("unknown", "a")], data)
    expected = np.array([[0, 1, 0], [1, 1, 0], [1, 1, 1], [0, 0, 0]], dtype=bool)
    np.testing.assert_array_equal(found, expected)


def test_a_modality_whose_name_has_a_bar_is_itself_first():
    data = dataset_of({name: np.ones((1, 2)) for name in ("a", "a|b", "b")})
    np.testing.assert_array_equal(mask([("id0", "a|b")], data), [[False, True, False]])


def test_an_unknown_modality_or_no_known_id_is_refused(data):
    with pytest.raises(DataError, match=r"unknown modality to exclude: list.csv row 1 \(id 'id1'\): 'd'"):
        mask([("id0", "a"), ("id1", "d")], data)
    with pytest.raises(DataError, match=r"none of the instances .*: 2 ids, none of them in the data"):
        mask([("x", "a"), ("y", None)], data)
