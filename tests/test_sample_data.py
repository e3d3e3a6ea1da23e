"""The sample data are what their README says, remade byte for byte by their script."""

from __future__ import annotations

import runpy
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.datasets import load_digits

SAMPLE_DATA = Path(__file__).parents[1] / "sample_data"
FILES = ("features/left.h5", "features/right.h5", "features/spectrum.parquet", "labels.parquet")


def read(name: str) -> tuple[list[str], np.ndarray]:
    """Ids and features of one modality, by the file format's own library."""
    path = SAMPLE_DATA / "features" / name
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            return list(file["id"].asstr()[:]), file["features"][:]
    table = pq.read_table(path)
    return table["id"].to_pylist(), np.array(table["features"].to_pylist(), np.float32)


@pytest.fixture(scope="module")
def digits():
    return load_digits()


def test_the_script_remakes_the_committed_bytes(tmp_path):
    made_by = pq.ParquetFile(SAMPLE_DATA / FILES[2]).metadata.created_by
    if not made_by.endswith(f" {pa.__version__}"):
        pytest.skip(f"the committed files are of {made_by}")  # its name is in their bytes
    runpy.run_path(str(SAMPLE_DATA / "make_sample_data.py"))["main"](tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in FILES} == {
        name: (SAMPLE_DATA / name).read_bytes() for name in FILES
    }


@pytest.mark.parametrize(("name", "columns"), [("left.h5", slice(0, 4)), ("right.h5", slice(4, 8))])
def test_halves_are_the_pixels_of_the_digit_their_id_names(name, columns, digits):
    ids, features = read(name)
    for instance, row in zip(ids, features, strict=True):
        image = digits.images[int(instance.removeprefix("digit-")) - 1]
        np.testing.assert_array_equal(row, image[:, columns].ravel())


def test_spectrum_holds_every_magnitude_of_the_transform(digits):
    ids, features = read("spectrum.parquet")
    images = digits.images[[int(i.removeprefix("digit-")) - 1 for i in ids]]
    # Parseval: all but (0, 0), (0, 4), (4, 0) and (4, 4) stand for two frequencies, and the file keeps 3 decimals.
    twice = np.where(np.isin(np.arange(34), [0, 4, 29, 33]), 1.0, 2.0)
    power = np.expm1(features.astype(np.float64)) ** 2 @ twice
    np.testing.assert_allclose(power, 64 * (images**2).sum(axis=(1, 2)), rtol=1.1e-3)
    np.testing.assert_allclose(features[:, 0], np.log1p(images.sum(axis=(1, 2))), atol=6e-4)


def test_labels_are_the_digits(digits):
    table = pq.read_table(SAMPLE_DATA / "labels.parquet")
    assert table["id"].to_pylist() == [f"digit-{row + 1:04d}" for row in range(len(digits.target))]
    np.testing.assert_array_equal(table["label"].to_numpy(), digits.target)


def test_some_instances_lack_a_modality_and_orders_differ():
    ids = {name: read(name)[0] for name in ("left.h5", "right.h5", "spectrum.parquet")}
    for of_modality in ids.values():
        assert len(set(of_modality)) == len(of_modality)
    assert [len(of_modality) for of_modality in ids.values()] == [1797, 1698, 1617]
    both = set(ids["right.h5"]) & set(ids["spectrum.parquet"])
    orders = [[i for i in of_modality if i in both] for of_modality in ids.values()]
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_the_readme_counts_the_instances():
    text = (SAMPLE_DATA / "README.md").read_text(encoding="utf-8")
    for name in ("left.h5", "right.h5", "spectrum.parquet"):
        ids, features = read(name)
        line = next(line for line in text.splitlines() if f"features/{name}" in line)
        assert f"| {len(ids):,} | {features.shape[1]} " in line


def test_they_stay_small():
    assert sum(path.stat().st_size for path in SAMPLE_DATA.rglob("*") if path.is_file()) <= 2 * 10**6
