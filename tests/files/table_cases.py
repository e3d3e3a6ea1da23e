"""Layouts of tables, texts and what libraries save: splits, frames, records, matrices of cells."""

from __future__ import annotations

import csv
import json

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from tests.files.cases import (
    DIMS,
    IDS,
    ORDERS,
    Case,
    N,
    case,
    each,
    in_hdf5,
    npy,
    observations,
    rows,
    saved,
    shards,
    sparse_matrix,
)


@case
def arrow_files_and_streams(folder):
    def write(m, x, ids):
        table = pa.table({"id": ids, "embedding": list(x)})
        if m == "image":
            feather.write_feather(table, folder / "image.feather")
        else:
            with pa.ipc.new_stream(folder / "text.arrows", table.schema) as writer:
                writer.write_table(table, max_chunksize=7)

    each(write)
    return Case(["image.feather", "text.arrows"])


@case
def a_saved_data_set_with_splits(folder):
    for split, part in (("train", slice(0, 20)), ("test", slice(20, N))):
        at = np.arange(N)[part]
        columns = {m: list(rows(m, at)) for m in DIMS}
        saved(folder / "all" / split, pa.table({"id": [IDS[row] for row in at], **columns}))
    (folder / "all" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    return Case(["all"], sides=("split",))


@case
def splits_in_the_names_of_files(folder):
    for split, part in (("train", slice(0, 20)), ("test", slice(20, N))):
        for m in DIMS:
            npy(folder / f"{m}_{split}.npy", rows(m, np.arange(N)[part]))
    return Case(["."], by_row=True, sides=("split",), options={})


@case
def splits_as_groups(folder):
    with h5py.File(folder / "all.h5", "w") as file:
        for split, part in (("train", slice(0, 20)), ("valid", slice(20, N))):
            for m in DIMS:
                file[f"{split}/{m}"] = rows(m, np.arange(N)[part])
            file[f"{split}/id"] = IDS[part]
    return Case(["all.h5"], sides=("split",))


@case
def vectors_as_text_in_csv(folder):
    def write(m, x, ids):
        with (folder / f"{m}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "embedding"])
            writer.writerows([i, json.dumps(v.tolist())] for i, v in zip(ids, x, strict=True))

    each(write)
    return Case(["image.csv", "text.csv"])


@case
def wide_tables_as_text(folder):
    def write(m, x, ids):
        with (folder / f"{m}.tsv").open("w", newline="") as file:
            writer = csv.writer(file, delimiter="\t")
            writer.writerow(["", *(f"dim_{k}" for k in range(x.shape[1]))])
            writer.writerows([i, *v.tolist()] for i, v in zip(ids, x, strict=True))

    each(write)
    return Case(["image.tsv", "text.tsv"])


@case
def an_object_of_vectors_by_id(folder):
    def write(m, x, ids):
        (folder / f"{m}.json").write_text(json.dumps(dict(zip(ids, x.tolist(), strict=True))))

    each(write)
    return Case(["image.json", "text.json"])


@case
def an_object_of_objects_by_id(folder):
    each_of = {i: {m: rows(m, [row])[0].tolist() for m in DIMS} for row, i in enumerate(IDS)}
    (folder / "all.json").write_text(json.dumps(each_of))
    return Case(["all.json"])


@case
def an_index_of_two_levels(folder):
    def write(m, x, ids):
        levels = {"video": [i[:3] for i in ids], "frame": [i[3:] for i in ids]}
        table = pa.table({"embedding": list(x), **levels})
        about = {"index_columns": list(levels), "columns": [{"name": one, "field_name": one} for one in levels]}
        table = table.replace_schema_metadata({b"pandas": json.dumps(about).encode()})
        pq.write_table(table, folder / f"{m}.parquet")

    each(write)
    return Case(["image.parquet", "text.parquet"], texts=False)


@case
def json_lines(folder):
    def write(m, x, ids):
        lines = [json.dumps({"id": i, "embedding": v.tolist()}) for i, v in zip(ids, x, strict=True)]
        (folder / f"{m}.jsonl").write_text("\n".join(lines) + "\n")

    each(write)
    return Case(["image.jsonl", "text.jsonl"])


@case
def columns_that_only_the_user_knows(folder):
    def write(m, x, ids):
        columns = {f"gene{chr(97 + k)}": x[:, k] for k in range(x.shape[1])}
        pq.write_table(pa.table({"id": ids, **columns}), folder / f"{m}.parquet")

    each(write)
    return Case(["image.parquet", "text.parquet"], refused="--feature-column '*'")


@case
def a_frame_in_hdf5(folder):
    def fill(file, m, x, ids):
        group = file.create_group(f"{m}_frame")
        group.attrs["pandas_type"] = "frame"
        group["axis0"] = np.array([f"c{k}" for k in range(x.shape[1])], "S4")
        group["axis1"] = np.array(ids, "S8")
        group["block0_items"] = group["axis0"][:]
        group["block0_values"] = x

    return in_hdf5(folder, fill)


@case
def a_frame_of_records_in_hdf5(folder):
    def write(m, x, ids):
        records = np.zeros(N, [("index", "S8"), ("values_block_0", "f4", (x.shape[1],))])
        records["index"], records["values_block_0"] = ids, x
        with h5py.File(folder / f"{m}.h5", "w") as file:
            group = file.create_group("t")
            group.attrs["pandas_type"] = "frame_table"
            group["table"] = records

    each(write)
    return Case(["image.h5", "text.h5"])


@case
def matlab(folder):
    for m in DIMS:
        with h5py.File(folder / f"{m}.mat", "w") as file:
            file[m] = rows(m, range(N)).T
    return Case(["image.mat", "text.mat"], by_row=True)


@case
def anndata_with_embeddings(folder):
    def fill(file, m, x, ids):
        observations(file, ids)
        if m == "image":
            file["obsm/X_pca"], file["obsm/X_umap"] = x, x[:, :2]
            file["varm/PCs"] = np.ones((N, 5), np.float32)
            sparse = file.create_group("X")
            sparse.attrs["encoding-type"], sparse.attrs["shape"] = "csr_matrix", (N, 50)
        else:
            file["X"] = x

    return in_hdf5(folder, fill, "h5ad", sides=("batch",))


@case
def a_sparse_matrix_and_nothing_else(folder):
    def fill(file, m, x, ids):
        observations(file, ids)
        sparse_matrix(file, x)

    return in_hdf5(folder, fill, "h5ad", refused="Pass --components 7", values=False)


@case
def ids_that_have_nothing_in_common_and_a_column_that_does(folder):
    def write(m, x, ids):
        table = pa.table({"id": [f"{m}-{i}" for i in ids], "asset": ids, "embedding": list(x)})
        pq.write_table(table, folder / f"{m}.parquet")

    each(write)
    return Case(["image.parquet", "text.parquet"], refused="Type --id-column asset")


@case
def ids_in_one_file_and_a_column_that_could_be_them_in_the_other(folder):
    def write(m, x, ids):
        table = pa.table({"id" if m == "image" else "product": ids, "embedding": list(x)})
        pq.write_table(table, folder / f"{m}.parquet")

    each(write)
    return Case(["image.parquet", "text.parquet"], refused="--id-column product")


@case
def mudata(folder):
    with h5py.File(folder / "all.h5mu", "w") as file:
        for m, order in ORDERS.items():
            group = file.create_group(f"mod/{m}")
            observations(group, [IDS[row] for row in order])
            group["X"] = rows(m, order)
    return Case(["all.h5mu"])


@case
def clip_retrieval_folders(folder):
    for m, part, x, ids in shards(folder, ""):
        short = {"image": "img", "text": "text"}[m]
        npy(folder / "clip" / f"{short}_emb" / f"{short}_emb_{part}.npy", x)
        (folder / "clip" / "metadata").mkdir(exist_ok=True)
        table = pa.table({"image_path": ids, "caption": [f"of {i}" for i in ids]})
        pq.write_table(table, folder / "clip" / "metadata" / f"metadata_{part}.parquet")
    return Case(["clip"], sides=("caption",))


@case
def zarr_arrays_in_version_2(folder):
    zarr = pytest.importorskip("zarr")

    def write(m, x, ids):
        group = zarr.open_group(folder / f"{m}.zarr", mode="w", zarr_format=2)
        group.create_array("features", data=x, chunks=(7, x.shape[1]))
        group.create_array("ids", data=np.array(ids))

    each(write)
    return Case(["image.zarr", "text.zarr"])


def texts(group, name, values):
    group.create_array(name, shape=(len(values),), dtype=str)[:] = np.array(values, np.dtypes.StringDType())


@case
def zarr_arrays_in_version_3_with_shards(folder):
    zarr = pytest.importorskip("zarr")

    def write(m, x, ids):
        group = zarr.open_group(folder / f"{m}.zarr", mode="w", zarr_format=3)
        group.create_array("features", data=x, chunks=(5, x.shape[1]), shards=(10, x.shape[1]))
        texts(group, "ids", ids)

    each(write)
    return Case(["."])


@case
def zarr_array_for_each_instance(folder):
    zarr = pytest.importorskip("zarr")

    def write(m, x, ids):
        group = zarr.open_group(folder / f"{m}.zarr", mode="w")
        for key, vector in zip(ids, x, strict=True):
            group.create_array(key, data=vector)

    each(write)
    return Case(["image.zarr", "text.zarr"])


@case
def zarr_stores_of_one_array(folder):
    zarr = pytest.importorskip("zarr")
    for m in DIMS:
        zarr.save_array(folder / f"{m}.zarr", rows(m, range(N)))
    return Case(["image.zarr", "text.zarr"], by_row=True)


@case
def zarr_anndata(folder):
    zarr = pytest.importorskip("zarr")

    def write(m, x, ids):
        group = zarr.open_group(folder / f"{m}.zarr", mode="w", zarr_format=2 if m == "image" else 3)
        group.attrs["encoding-type"] = "anndata"
        obs = group.create_group("obs")
        obs.attrs["_index"] = "cell"
        texts(obs, "cell", ids)
        obs.create_array("kind/codes", data=np.zeros(N, "i1"))
        texts(obs, "kind/categories", ["t"])
        group.create_array("obsm/X_pca" if m == "image" else "X", data=x)

    each(write)
    return Case(["image.zarr", "text.zarr"], sides=("kind",))


@case
def lance_data_sets(folder):
    lance = pytest.importorskip("lance")
    each(lambda m, x, ids: lance.write_dataset(pa.table({"id": ids, "vector": list(x)}), folder / f"{m}.lance"))
    return Case(["."])


@case
def names_of_observations_that_may_be_null(folder):
    def fill(file, m, x, ids):
        obs = file.create_group("obs")
        obs.attrs["_index"] = "_index"
        names = obs.create_group("_index")
        names.attrs["encoding-type"] = "nullable-string-array"
        names["values"], names["mask"] = ids, np.zeros(N, bool)
        file["X"] = x

    return in_hdf5(folder, fill, "h5ad")
