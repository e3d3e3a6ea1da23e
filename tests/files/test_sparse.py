"""Sparse matrices of AnnData by truncated SVD, in HDF5 and in zarr."""

import h5py
import numpy as np
import pytest

from pmrl_cli.errors import PmrlError, UsageError
from pmrl_cli.files.join.dataset import read_dataset
from tests.files.layout_cases import observations, sparse_matrix

N, D, K = 40, 25, 6
IDS = [f"cell{row}" for row in range(N)]


def counts():
    random = np.random.default_rng(0)
    return (random.poisson(2, (N, D)) * (random.random((N, D)) < 0.4)).astype(np.float32)


def h5ad(path, x, kind="csr", **obsm):
    with h5py.File(path, "w") as file:
        observations(file, IDS)
        sparse_matrix(file, x, kind)
        for name, values in obsm.items():
            file[f"obsm/{name}"] = values
    return str(path)


def partner(folder):
    np.savez(folder / "partner.npz", features=counts()[:, :5] + 1, ids=np.array(IDS))
    return str(folder / "partner.npz")


@pytest.mark.parametrize("kind", ["csr", "csc"])
def test_a_sparse_matrix_is_read_as_the_scores_of_its_truncated_svd(tmp_path, kind):
    x = counts()
    data = read_dataset([h5ad(tmp_path / "rna.h5ad", x, kind), partner(tmp_path)], components=K)
    found = data.modalities[data.names.index("rna")].read(slice(0, N))
    order = [IDS.index(i) for i in data.ids.to_pylist()]
    u, s, vt = np.linalg.svd(x.astype(np.float64), full_matrices=False)
    signs = np.sign(vt[np.arange(len(s)), np.abs(vt).argmax(axis=1)])
    wanted = (u * s * signs)[:, :K][order]
    assert np.allclose(found, wanted, atol=1e-4)
    assert any("truncated SVD of 6 columns, which fit no other matrix" in note for note in data.notes)


def test_components_beyond_the_rank_are_zero_and_not_what_rounding_left(tmp_path):
    x = counts()[:, :2] @ np.ones((2, D), np.float32) + np.arange(D, dtype=np.float32)  # of rank 2
    data = read_dataset([h5ad(tmp_path / "rna.h5ad", x), partner(tmp_path)], components=K)
    found = data.modalities[data.names.index("rna")].read(slice(0, N))
    assert found[:, :2].any(axis=0).all()
    assert not found[:, 2:].any()


def test_a_sparse_matrix_is_refused_by_its_name_with_the_option_that_helps(tmp_path):
    files = [h5ad(tmp_path / "rna.h5ad", counts()), partner(tmp_path)]
    with pytest.raises(PmrlError, match=r"rna.h5ad:/X: a sparse matrix \(csr, 40 x 25\).*Pass --components 24 "):
        read_dataset(files)
    assert len(read_dataset(files, components=24)) == N
    with pytest.raises(UsageError, match=r"25 of a sparse matrix .* expected 1 to 24. Pass --components 24"):
        read_dataset(files, components=25)


def test_an_embedding_comes_before_the_matrix_and_the_matrix_can_be_named(tmp_path):
    x = counts()
    file = h5ad(tmp_path / "rna.h5ad", x, X_pca=x[:, :7] + 1)
    data = read_dataset([file, partner(tmp_path)], components=3)
    assert dict(zip(data.names, (f.dim for f in data.modalities), strict=True))["rna"] == 7
    assert any("left out: /X (40 x 3 float32)" in note for note in data.notes)
    both = read_dataset([f"pca={file}", f"svd={file}:/X"], components=3)
    assert [f.dim for f in both.modalities] == [7, 3]


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("indices", lambda values: values + D, "rna.h5ad:/X"),
        ("indptr", lambda values: values[::-1].copy(), "rna.h5ad:/X"),
        ("data", lambda values: values * np.nan, "NaN or Inf among its values"),
    ],
)
def test_a_damaged_matrix_is_an_error_that_names_it(tmp_path, part, change, said):
    file = h5ad(tmp_path / "rna.h5ad", counts())
    with h5py.File(file, "r+") as opened:
        opened[f"X/{part}"][...] = change(opened[f"X/{part}"][()])
    with pytest.raises(PmrlError, match=said):
        read_dataset([file, partner(tmp_path)], components=K)
