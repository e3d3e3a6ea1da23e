"""Reading a data set: joins, bad rows, missing vectors, digests, memory or disk."""

import io
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pmrl_cli.errors import DataError
from pmrl_cli.files.formats import contents
from pmrl_cli.files.join.dataset import read_dataset
from pmrl_cli.files.join.fill import BAD_ROWS

NAN, INF = np.nan, np.inf
SHARED = Path(__file__).parents[2] / "../shared/data"


def vectors(rows, dim, start=1):
    return np.arange(start, start + rows * dim, dtype=np.float32).reshape(rows, dim)


TABLES = st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=8, unique=True), min_size=2, max_size=3)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tables=TABLES,
    how=st.sampled_from(["inner", "outer"]),
    max_memory=st.sampled_from([None, 1]),
    missing=st.sets(st.tuples(st.integers(0, 2), st.sampled_from("abcdefgh")), max_size=4),
)
def test_the_data_set_is_the_dictionary_join(make, monkeypatch, tables, how, max_memory, missing):
    monkeypatch.setattr(contents, "READ_BYTES", 24)  # two or three rows a block
    named = [{i: np.array([m + 1, ord(i)], np.float32) for i in ids} for m, ids in enumerate(tables)]
    paths = []
    for m, table in enumerate(named):
        rows = [np.full(2, NAN, np.float32) if (m, i) in missing else row for i, row in table.items()]
        paths.append(make.h5(f"m{m}.h5", {"features": np.array(rows), "ids": list(table)}))
    for m, i in missing:
        if m < len(named):
            named[m].pop(i, None)
    order = list(tables[0]) if how == "inner" else list(dict.fromkeys(i for ids in tables for i in ids))
    least = len(tables) if how == "inner" else 2
    kept = [i for i in order if sum(i in table for table in named) >= least]
    if not kept:
        with pytest.raises(DataError, match="no instance"):
            read_dataset(paths, join=how, max_memory=max_memory)
        return
    data = read_dataset(paths, join=how, max_memory=max_memory)
    assert data.ids.to_pylist() == kept
    for m, table in enumerate(named):
        wanted = np.array([table.get(i, np.zeros(2)) for i in kept], np.float32)
        assert np.array_equal(data.modalities[m].array, wanted)
        assert data.present[:, m].tolist() == [i in table for i in kept]
        np.save(file := io.BytesIO(), wanted.astype("<f4"))
        assert data.modalities[m].digest == sha256(file.getvalue()).hexdigest()


def bad_pair(make):
    image, text = vectors(6, 3), vectors(6, 4)
    image[1, 0] = NAN
    image[3] = 0
    text[4, 2:] = [INF, NAN]
    ids = [f"v{row}" for row in range(6)]
    return make.h5("image.h5", {"features": image, "ids": ids}), make.h5("text.h5", {"features": text, "ids": ids})


def test_bad_rows_are_named_by_place(make):
    image, text = bad_pair(make)
    with pytest.raises(DataError) as caught:
        read_dataset([image, text])
    assert str(caught.value) == (
        f"non-finite value: {image}:/features row 1 (id 'v1'): NaN in 1 of 3 columns, expected finite float32. "
        f"{BAD_ROWS} Also at {image}:/features row 3 (id 'v3')."
    )


def test_bad_rows_can_be_dropped_and_are_counted(make):
    data = read_dataset(list(bad_pair(make)), on_bad="drop")
    assert data.ids.to_pylist() == ["v0", "v2", "v5"]
    assert np.array_equal(data.modalities[1].array, vectors(6, 4)[[0, 2, 5]])
    assert "dropped 3 instances with a bad row (image 2, text 1)." in data.notes


def test_more_bad_rows_than_are_shown_are_counted(make):
    image, text = make.two(30)
    with pytest.raises(DataError, match=r"\(30 in all\.\)"):
        read_dataset([make.h5("zero.h5", {"features": np.zeros((30, 2)), "ids": [f"i{r}" for r in range(30)]}), text])
    assert Path(image).exists()


def test_rows_outside_the_join_may_be_bad(make):
    image, text = bad_pair(make)
    few = make.h5("few.h5", {"features": vectors(2, 2), "ids": ["v0", "v5"]})
    assert read_dataset([image, text, few], join="inner").ids.to_pylist() == ["v0", "v5"]


@pytest.mark.parametrize(("value", "found"), [(1e39, "Inf in 1 of 2 columns"), (1e-60, "0 in all 2 columns")])
def test_float64_beyond_float32_is_a_bad_row(make, value, found):
    x = make.h5("x.h5", {"features": np.array([[value, 0], [1, 1]]), "ids": ["a", "b"]})
    with pytest.raises(DataError, match=found):
        read_dataset([x, make.h5("y.h5", {"features": vectors(2, 2), "ids": ["a", "b"]})])


def test_large_and_small_float16_are_good(make):
    x = np.array([[300, 6e4], [6e-8, 0]], np.float16)
    paths = [make.h5(name, {"features": x, "ids": ["a", "b"]}) for name in ("x.h5", "y.h5")]
    assert np.array_equal(read_dataset(paths).modalities[0].array, x)


def test_nothing_is_left_on_disk_when_memory_is_short(make, monkeypatch, tmp_path):
    (tmp_path / "t").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "t"))
    data = read_dataset(make.two(50), max_memory=1)
    assert isinstance(data.modalities[0].array, np.memmap)
    assert list((tmp_path / "t").iterdir()) == []
    assert np.array_equal(data.modalities[0].read(slice(0, 50)), vectors(50, 3))


def test_equal_data_has_equal_digests_in_any_format(make):
    ids = ["a", "b", "c"]
    x = vectors(3, 2)
    h5 = make.h5("x.h5", {"features": x.astype(">f8"), "ids": ids})
    parquet = make.parquet("y.parquet", {"id": ids[::-1], "emb": list(x[::-1])})
    first, second = read_dataset([h5, parquet]).modalities
    assert first.digest == second.digest


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "instances", "dims"),
    [
        ("cy101", 500, (900, 630, 900, 1152)),
        ("mfeat6", 2000, (216, 76, 64, 6, 240, 47)),
        ("tcga_brca", 348, (645, 574, 423, 142)),
        ("wikipedia", 2866, (128, 10)),
    ],
)
def test_real_sets_read_without_a_flag(name, instances, dims):
    if not (SHARED / name).is_dir():
        pytest.skip("the real sets are not beside this checkout")
    data = read_dataset([str(SHARED / name)])
    assert (len(data), data.dims) == (instances, dims)
    assert {"label", "split"} <= set(data.columns)
    assert all(column.null_count == 0 for key, column in data.columns.items() if key == "split")
