"""Checks of rows and ids, and the data set made of arrays under the same rules."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pmrl_cli.data.arrays import dataset_from_arrays
from pmrl_cli.data.validate import check_unique, row_faults, text_ids
from pmrl_cli.errors import DataError

NAN, INF = np.nan, np.inf
VALUES = st.sampled_from([0.0, -0.0, 1.0, -2.5, 1e-30, 1e-45, 1e30, 3e38, NAN, INF, -INF])


@settings(deadline=None)
@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 4)), elements=VALUES.map(np.float32)))
def test_row_faults_are_those_a_loop_finds(block):
    missing, bad = row_faults(block)
    for row, is_missing, is_bad in zip(block.tolist(), missing, bad, strict=True):
        all_nan = all(v != v for v in row)
        finite = all(v == v and abs(v) != INF for v in row)
        assert is_missing == all_nan
        assert is_bad == (not all_nan and (not finite or all(v == 0 for v in row)))


@pytest.mark.parametrize("value", [1e30, 1e-30, 3e38, 1e-44])
def test_extreme_but_finite_rows_are_good(value):
    block = np.full((1, 64), value, dtype=np.float32)
    assert [array.tolist() for array in row_faults(block)] == [[False], [False]]


@settings(deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1))
def test_ids_keep_every_byte(ids):
    assert text_ids(pa.array(ids), file="f").to_pylist() == ids
    encoded = pa.array([i.encode() for i in ids], pa.large_binary())
    assert text_ids(encoded, file="f").to_pylist() == ids


@settings(deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1))
def test_integer_ids_become_decimal_text(ids):
    assert text_ids(pa.array(ids, pa.int64()), file="f").to_pylist() == [str(i) for i in ids]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (pa.array(["a", None]), "missing id: f:ids row 1: null, expected one text or integer id per row."),
        (pa.array(["a", "", "b", ""]), "empty id: f:ids row 1: '', expected"),
        (
            pa.array([b"a", b"\xe9t\xe9"]),
            "id is not UTF-8 text: f:ids row 1 (id '\ufffdt\ufffd'): b'\\xe9t\\xe9', expected",
        ),
        (pa.array([1.5]), "ids are of a type that cannot name instances: f:ids: double, expected text or integers."),
    ],
)
def test_bad_ids_are_refused_by_row(values, message):
    with pytest.raises(DataError) as caught:
        text_ids(values, file="f", dataset="ids")
    assert str(caught.value).startswith(message)


def test_duplicates_name_both_rows_shards_and_the_count():
    ids = pa.array(["a", "b", "c", "b", "a"], pa.large_string())
    with pytest.raises(DataError) as caught:
        check_unique(ids, [("one.h5", "/ids", 2), ("two.h5", "/ids", 3)])
    message = str(caught.value)
    assert "two.h5:/ids row 1 (id 'b'): the id of one.h5:/ids row 1 (id 'b') again" in message
    assert "Also at two.h5:/ids row 2 (id 'a')" in message
    assert caught.value.total == 2


def test_arrays_become_a_data_set_ordered_by_name():
    text = np.arange(6, dtype=np.float64).reshape(3, 2) + 1
    image = np.array([[1, 2, 3], [NAN, NAN, NAN], [4, 5, 6]], dtype=np.float16)
    data = dataset_from_arrays({"text": text, "image": image}, ["x", "y", "z"], {"label": [1, 2, None]})
    assert data.names == ("image", "text")
    assert data.present.tolist() == [[True, True], [False, True], [True, True]]
    assert data.modalities[0].read(slice(0, 3)).tolist() == [[1, 2, 3], [0, 0, 0], [4, 5, 6]]
    assert data.modalities[1].array.tolist() == text.tolist()
    assert data.columns["label"].to_pylist() == [1, 2, None]
    assert np.isnan(image[1]).all(), "the caller's array was changed"


def test_arrays_without_ids_are_known_by_row():
    data = dataset_from_arrays({"a": np.ones((3, 2), np.float32)})
    assert data.named_by_row
    assert data.ids.to_pylist() == ["0", "1", "2"]


def test_float32_arrays_are_not_copied():
    array = np.ones((3, 2), np.float32)
    assert np.shares_memory(dataset_from_arrays({"a": array}).modalities[0].array, array)


ROWS = [[1.0, 2.0], None, [3.0, 4.0]]


def of_objects(rows):
    column = np.empty(len(rows), dtype=object)
    column[:] = [None if row is None else np.array(row, np.float32) for row in rows]
    return column


@pytest.mark.parametrize(
    "column",
    [
        pa.array(ROWS, pa.list_(pa.float32(), 2)),
        pa.array(ROWS, pa.list_(pa.float32())),
        pa.array([[9.0], *ROWS], pa.large_list(pa.float32()))[1:],
        pa.chunked_array([pa.array(ROWS[:1], pa.list_(pa.float32())), pa.array(ROWS[1:], pa.list_(pa.float32()))]),
        pa.ExtensionArray.from_storage(
            pa.fixed_shape_tensor(pa.float32(), [2]), pa.array(ROWS, pa.list_(pa.float32(), 2))
        ),
        of_objects(ROWS),
    ],
    ids=["fixed", "list", "slice", "chunks", "tensors", "objects"],
)
def test_columns_of_lists_are_arrays_whose_nulls_are_missing(column):
    data = dataset_from_arrays({"a": column})
    assert data.present.ravel().tolist() == [True, False, True]
    assert data.modalities[0].array.tolist() == [[1, 2], [0, 0], [3, 4]]
    assert data.modalities[0].array.dtype == np.float32


ONES = np.ones((2, 2), np.float32)


@pytest.mark.parametrize(
    ("features", "ids", "message"),
    [
        ({}, None, "no modality"),
        ({"a": np.ones(3, np.float32)}, None, "float32 of shape (3,)"),
        ({"a": np.ones((2, 2), np.int64)}, None, "int64 of shape (2, 2)"),
        ({"a": np.ones((0, 2), np.float32)}, None, "float32 of shape (0, 2)"),
        ({"a": ONES, "b": np.ones((3, 2), np.float32)}, None, "a 2, b 3"),
        (
            {"a": pa.array([None, [1.0], [1.0, 2.0]])},
            None,
            "differ in length: a row 2: 2 values, expected 1 as in the",
        ),
        ({"a": of_objects([[1], [1, 2]])}, None, "vectors differ in length: a row 1: 2 values, expected 1"),
        ({"a": pa.array([None, None], pa.list_(pa.float32()))}, None, "float32 of shape (2, 0)"),
        ({"a": pa.array([[1, 2], None], pa.list_(pa.int64(), 2))}, None, "object of shape (2,)"),
        ({"a": pa.array([[1.0, None], [1.0, 1.0]])}, None, "NaN in 1 of 2 columns"),
        ({"a": np.array(["x", None], dtype=object)}, None, "object of shape (2,)"),
        ({"a": np.array([{}, object()], dtype=object)}, None, "object of shape (2,)"),
        ({"a": ONES}, ["x"], "ids and rows differ in number: 1, expected 2"),
        ({"a": ONES}, ["x", "x"], "duplicate id"),
        ({"a": ONES}, ["x", 1], "ids of mixed type: ids: int and str"),
        ({"a": np.array([[1, NAN], [1, 1]], np.float32)}, ["x", "y"], "a row 0 (id 'x'): NaN in 1 of 2 columns"),
        ({"a": np.array([[1, 1], [0, 0]], np.float32)}, None, "zero vector: a row 1 (id '1'): 0 in all 2 columns"),
        ({"a": np.array([[1e39, 1], [1, 1]], np.float64)}, None, "Inf in 1 of 2 columns, expected finite float32"),
    ],
)
def test_unusable_arrays_are_refused(features, ids, message):
    with pytest.raises(DataError) as caught:
        dataset_from_arrays(features, ids)
    assert message in str(caught.value)
