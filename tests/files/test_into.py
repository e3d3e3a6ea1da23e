"""Vectors put into files of AnnData and MuData: read back by h5py, and by their own libraries where there are any."""

import h5py
import numpy as np
import pyarrow as pa
import pytest

from pmrl_cli.data.dataset import EmbeddedBlock
from pmrl_cli.errors import DataError, UsageError
from pmrl_cli.files.artifacts.into import check_into, put_into

NAMES = ("protein", "rna")


def blocks():
    """Instances c0..c5 of two modalities in blocks of four and two: c1 lacks rna, c2 lacks both."""
    generator = np.random.default_rng(0)
    present = np.ones((6, 2), dtype=bool)
    present[1, 1] = present[2] = False
    embeddings = generator.normal(size=(6, 2, 3)).astype(np.float32) * present[..., None]
    fused = embeddings.sum(1)
    ids = pa.array([f"c{i}" for i in range(6)], pa.large_string())
    return [EmbeddedBlock(ids[s], embeddings[s], present[s], fused[s]) for s in (slice(0, 4), slice(4, 6))]


def whole(made):
    return (np.concatenate([getattr(b, name) for b in made]) for name in ("embeddings", "present", "fused"))


def group_of(file, observations):
    """Write the least that AnnData takes for a group."""
    file.attrs["encoding-type"], file.attrs["encoding-version"] = "anndata", "0.1.0"
    file["X"] = np.arange(2.0 * len(observations), dtype=np.float32).reshape(-1, 2)
    for name, index in (("obs", observations), ("var", ["g0", "g1"])):
        group = file.create_group(name)
        group.attrs.update({"_index": "_index", "encoding-type": "dataframe", "encoding-version": "0.2.0"})
        group.attrs["column-order"] = np.array([], dtype=h5py.string_dtype())
        group.create_dataset("_index", data=index, dtype=h5py.string_dtype())
        group["_index"].attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})


def contents(path):
    """Every dataset of a file by name."""
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, node: found.update({name: node[()]}) if isinstance(node, h5py.Dataset) else None)
    return found


@pytest.fixture
def h5ad(tmp_path):
    with h5py.File(tmp_path / "a.h5ad", "w") as file:
        group_of(file, ["c5", "other", "c1", "c2", "c0"])
    return tmp_path / "a.h5ad"


def test_each_observation_gets_the_vectors_of_its_id_and_the_rest_stays(h5ad):
    made, before = blocks(), contents(h5ad)
    written = put_into(h5ad, made, NAMES, (6, 3))
    assert written == {"/obsm/X_pmrl_protein": 3, "/obsm/X_pmrl_rna": 2, "/obsm/X_pmrl": 3}
    embeddings, present, fused = whole(made)
    after = contents(h5ad)
    for key, vectors, has in (
        ("X_pmrl_protein", embeddings[:, 0], present[:, 0]),
        ("X_pmrl_rna", embeddings[:, 1], present[:, 1]),
        ("X_pmrl", fused, present.any(1)),
    ):
        vectors = np.where(has[:, None], vectors, np.nan)
        wanted = np.stack([vectors[5], np.full(3, np.nan), vectors[1], vectors[2], vectors[0]])
        np.testing.assert_array_equal(after.pop(f"obsm/{key}"), wanted)
    assert after.keys() == before.keys()
    assert all(np.array_equal(after[name], before[name]) for name in before)
    put_into(h5ad, blocks(), NAMES, (6, 3))  # again: the arrays are replaced
    assert len(contents(h5ad)) == len(before) + 3


def test_of_a_mudata_file_each_modality_has_its_own(tmp_path):
    path = tmp_path / "a.h5mu"
    with h5py.File(path, "w") as file:
        group_of(file, ["c0", "c1", "c3"])
        group_of(file.create_group("mod/rna"), ["c3", "c0"])
        group_of(file.create_group("mod/protein"), ["c1"])
    made = blocks()
    written = put_into(path, made, NAMES, (6, 3))
    assert written == {"/mod/protein/obsm/X_pmrl": 1, "/mod/rna/obsm/X_pmrl": 2, "/obsm/X_pmrl": 3}
    embeddings, _, fused = whole(made)
    found = contents(path)
    np.testing.assert_array_equal(found["mod/rna/obsm/X_pmrl"], embeddings[[3, 0], 1])
    np.testing.assert_array_equal(found["obsm/X_pmrl"], fused[[0, 1, 3]])


def test_what_does_not_fit_is_refused_and_the_file_is_as_it_was(tmp_path, h5ad):
    with pytest.raises(UsageError, match=r"suffix '.txt'"):
        check_into(tmp_path / "a.txt")
    with pytest.raises(UsageError, match="no regular file"):
        check_into(tmp_path / "absent.h5mu")
    before = h5ad.read_bytes()
    unknown = [EmbeddedBlock(pa.array(["x"], pa.large_string()), *(b[:1] for b in whole(blocks())))]
    with pytest.raises(DataError, match="no observation whose name is the id of an instance"):
        put_into(h5ad, unknown, NAMES, (1, 3))
    assert h5ad.read_bytes() == before
    h5ad.rename(tmp_path / "a.h5mu")
    with pytest.raises(DataError, match="no modality protein, rna"):
        put_into(tmp_path / "a.h5mu", blocks(), NAMES, (6, 3))
    (tmp_path / "b.h5ad").write_bytes(b"not HDF5")
    with pytest.raises(DataError, match="vectors cannot be put into the file"):
        put_into(tmp_path / "b.h5ad", blocks(), NAMES, (6, 3))
    assert (tmp_path / "b.h5ad").read_bytes() == b"not HDF5"


@pytest.mark.filterwarnings("ignore")
def test_their_own_libraries_read_it_back(tmp_path):
    anndata, mudata = pytest.importorskip("anndata"), pytest.importorskip("mudata")
    pandas = pytest.importorskip("pandas")
    generator = np.random.default_rng(1)
    data = {}
    # AnnData cannot write the new kind of string.
    with pandas.option_context("future.infer_string", False):  # noqa: FBT003 - pandas has no keyword for it
        for name, rows in (("rna", [0, 3, 5]), ("protein", [0, 1, 2, 3, 4, 5])):
            data[name] = anndata.AnnData(generator.normal(size=(len(rows), 4)).astype(np.float32))
            data[name].obs_names = [f"c{i}" for i in rows]
            data[name].obs["kind"] = ["a", "b", "a", "b", "a", "b"][: len(rows)]
        data["rna"].write_h5ad(tmp_path / "a.h5ad")
        mudata.MuData(data).write_h5mu(tmp_path / "a.h5mu")
    made = blocks()
    embeddings, _, fused = whole(made)
    put_into(tmp_path / "a.h5ad", made, NAMES, (6, 3))
    read = anndata.read_h5ad(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(read.obsm["X_pmrl_rna"], embeddings[[0, 3, 5], 1])
    np.testing.assert_array_equal(read.X, data["rna"].X)
    assert read.obs["kind"].tolist() == ["a", "b", "a"]
    put_into(tmp_path / "a.h5mu", made, NAMES, (6, 3))
    read = mudata.read_h5mu(tmp_path / "a.h5mu")
    np.testing.assert_array_equal(read.mod["rna"].obsm["X_pmrl"], embeddings[[0, 3, 5], 1])
    rows = [int(name[1:]) for name in read.obs_names]
    wanted = np.where(np.array([row == 2 for row in rows])[:, None], np.nan, fused[rows])
    np.testing.assert_array_equal(read.obsm["X_pmrl"], wanted)
