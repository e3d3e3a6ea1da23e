"""Sparse matrices of AnnData by truncated SVD, in HDF5 and in zarr."""

import h5py
import numpy as np
import pytest

from pmrl_cli.aligner import Aligner
from pmrl_cli.data.read_options import ReadOptions
from pmrl_cli.errors import DataError, PmrlError, StateError, UsageError
from pmrl_cli.files.artifacts.store import ingest_store
from pmrl_cli.files.join.dataset import read_dataset
from tests.files.cases import observations, sparse_matrix

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


def others(folder, name):
    """The same columns of other cells: other axes."""
    return h5ad(folder / name, counts()[:, ::-1].copy())


def test_a_model_takes_no_columns_that_are_axes_of_another_matrix(tmp_path):
    rna, second, other = h5ad(tmp_path / "rna.h5ad", counts()), others(tmp_path, "second.h5ad"), partner(tmp_path)
    ingest_store([rna, other], tmp_path / "store", options := ReadOptions(components=K))
    model = Aligner(fast=True, device="cpu").fit(read_dataset([rna, other], options))
    model.save(tmp_path / "model")
    model = Aligner.load(tmp_path / "model")
    # The matrix itself, the store made of it, and with other files beside: the same axes.
    for files in ([rna, other], [str(tmp_path / "store")], [f"rna={rna}"]):
        model.embed_dataset(read_dataset(files, options, min_modalities=1))
    for files in ([f"rna={second}", other],):
        with pytest.raises(StateError, match=r"truncated SVD of another matrix .*anndata.concat does"):
            model.embed_dataset(read_dataset(files, options))
    # What the reader projected along axes of their own choice is theirs to judge.
    scores = read_dataset([rna, other], options).modalities[1].read(slice(0, N))
    np.savez(tmp_path / "scores.npz", features=scores, ids=np.array(IDS))
    model.embed_dataset(read_dataset([f"rna={tmp_path / 'scores.npz'}", other]))


def test_parts_of_a_modality_are_not_each_reduced_along_their_own_axes(tmp_path):
    parts = [h5ad(tmp_path / "a.h5ad", counts()), others(tmp_path, "b.h5ad")]
    with pytest.raises(DataError, match=r"'rna' are reduced along axes of their own.*b.h5ad.*anndata.concat does"):
        read_dataset([f"rna={part}" for part in parts] + [partner(tmp_path)], components=K)


@pytest.mark.filterwarnings("ignore")
def test_what_the_refusal_advises_works(tmp_path):
    anndata = pytest.importorskip("anndata")
    import pandas as pd
    from scipy.sparse import csr_array

    halves = [csr_array(counts()), csr_array(counts()[:, ::-1])]
    names = [[f"part{number}_{one}" for one in IDS] for number in range(2)]
    with pd.option_context("future.infer_string", False):  # noqa: FBT003 - pandas has no keyword for it
        parts = [
            anndata.AnnData(x, obs=pd.DataFrame(index=np.array(of, object)))
            for x, of in zip(halves, names, strict=True)
        ]
        anndata.concat(parts).write_h5ad(tmp_path / "all.h5ad")
    np.savez(tmp_path / "partner.npz", features=np.ones((N, 3), np.float32), ids=np.array(names[0]))
    data = read_dataset([str(tmp_path / "all.h5ad"), str(tmp_path / "partner.npz")], components=K, min_modalities=1)
    assert len(data) == 2 * N
    assert data.dims == (K, 3)
