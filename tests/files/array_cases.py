"""Layouts of arrays: ids in columns, files and names of files, one file or one dataset for each instance."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file

from tests.files.cases import (
    DIMS,
    IDS,
    ORDERS,
    Case,
    N,
    case,
    each,
    file_per_instance,
    frames,
    in_hdf5,
    npy,
    pandas_table,
    rows,
    shards,
)


@case
def ids_in_a_column_of_parquet(folder):
    each(lambda m, x, ids: pq.write_table(pa.table({"id": ids, "embedding": list(x)}), folder / f"{m}.parquet"))
    return Case(["image.parquet", "text.parquet"])


@case
def the_index_of_a_frame(folder):
    each(lambda m, x, ids: pq.write_table(pandas_table({"embedding": list(x)}, ids), folder / f"{m}.parquet"))
    return Case(["image.parquet", "text.parquet"])


@case
def the_named_index_of_a_wide_frame(folder):
    def write(m, x, ids):
        columns = {str(k): x[:, k] for k in range(x.shape[1])}
        pq.write_table(pandas_table(columns, ids, "track_id"), folder / f"{m}.parquet")

    each(write)
    return Case(["image.parquet", "text.parquet"])


@case
def an_index_that_counts_rows_is_none(folder):
    for m in DIMS:
        table = pa.table({"embedding": list(rows(m, range(N)))})
        about = {"index_columns": [{"kind": "range", "start": 0, "stop": N, "step": 1}], "columns": []}
        pq.write_table(
            table.replace_schema_metadata({b"pandas": json.dumps(about).encode()}), folder / f"{m}.parquet"
        )
    return Case(["image.parquet", "text.parquet"], by_row=True)


@case
def a_column_that_could_be_the_ids(folder):
    def write(m, x, ids):
        own = [f"{m}{row}" for row in range(N)]
        table = pa.table({"unique": own, "cell": ids, "product": ["a"] * N, "embedding": list(x)})
        pq.write_table(table, folder / f"{m}.parquet")

    each(write)
    return Case(["image.parquet", "text.parquet"], refused="Type --id-column cell")


@case
def row_order_that_is_said(folder):
    for m in DIMS:
        table = pa.table({"title": [f"{m} {row}" for row in range(N)], "embedding": list(rows(m, range(N)))})
        pq.write_table(table, folder / f"{m}.parquet")
    return Case(["image.parquet", "text.parquet"], refused="Type --by-row", by_row=True)


@case
def one_id_column_for_each_modality(folder):
    each(lambda m, x, ids: pq.write_table(pa.table({f"{m}_key": ids, "embedding": list(x)}), folder / f"{m}.parquet"))
    return Case(["image.parquet", "text.parquet"], {"id_column": ("image=image_key", "text=text_key")})


@case
def several_id_columns_in_turn(folder):
    each(lambda m, x, ids: pq.write_table(pa.table({f"{m}_key": ids, "embedding": list(x)}), folder / f"{m}.parquet"))
    return Case(["image.parquet", "text.parquet"], {"id_column": ("image_key", "text_key")})


@case
def a_vector_in_a_file_for_each_instance(folder):
    file_per_instance(folder, ".npy", -1)
    return Case(["image", "text"], n=N - 2)


@case
def a_row_in_a_file_for_each_instance_as_a_shell_lists_them(folder):
    file_per_instance(folder, ".npy", (1, -1))
    return Case([f"{m}/*.npy" for m in DIMS], n=N - 2)


@case
def an_npz_for_each_instance(folder):
    file_per_instance(folder, ".npz", (1, -1))
    return Case(["."], n=N - 2)


@case
def an_h5_for_each_instance(folder):
    file_per_instance(folder, ".h5", (1, -1))
    return Case(["image", "text"], n=N - 2)


@case
def frames_in_a_file_for_each_instance(folder):
    for m in DIMS:
        for row in range(N):
            npy(folder / m / f"{IDS[row]}.npy", frames(rows(m, [row])[0], 3 + row % 4))
    return Case(["image", "text"], refused="Pass --pool mean")


@case
def a_word_in_the_names_of_files_of_one_instance(folder):
    for m, order in ORDERS.items():
        for row in order:
            if m == "image" or row % 9:
                npy(folder / f"{IDS[row]}_{m}.npy", rows(m, [row]))
    return Case(["."], n=N - 4)


@case
def a_folder_for_each_instance(folder):
    for m, order in ORDERS.items():
        for row in order:
            npy(folder / "all" / IDS[row] / f"{m}.npy", rows(m, [row])[0])
    return Case(["all"])


@case
def ids_of_each_shard_beside_it(folder):
    for m, part, x, ids in shards(folder, ""):
        npy(folder / m / f"emb_{part}.npy", x)
        npy(folder / m / f"ids_{part}.npy", np.array(ids))
    return Case(["image", "text"])


@case
def ids_named_after_the_modality(folder):
    def write(m, x, ids):
        npy(folder / f"{m}_emb.npy", x)
        npy(folder / f"{m}_ids.npy", np.array(ids))

    each(write)
    return Case(["."])


@case
def ids_of_their_own_and_a_column_in_common(folder):
    def write(m, x, ids):
        own = [f"{m}{row}" for row in range(N)]
        pq.write_table(pa.table({"id": own, "cell": ids, "embedding": list(x)}), folder / f"{m}.parquet")

    each(write)
    return Case(["image.parquet", "text.parquet"], refused="Type --id-column cell")


@case
def a_dataset_for_each_instance(folder):
    def fill(file, m, x, ids):
        for key, vector in zip(ids, x, strict=True):
            file[key] = vector.astype("f2")

    return in_hdf5(folder, fill)


@case
def a_numbered_dataset_with_the_id_as_an_attribute(folder):
    def fill(file, m, x, ids):
        for row, (key, vector) in enumerate(zip(ids, x, strict=True)):
            file.create_dataset(str(row), data=vector).attrs["original_id"] = key

    return in_hdf5(folder, fill)


@case
def frames_in_a_dataset_for_each_instance(folder):
    def fill(file, m, x, ids):
        for key, vector in zip(ids, x, strict=True):
            file[key] = frames(vector, 6)

    return in_hdf5(folder, fill, refused="Pass --pool mean")


@case
def a_group_for_each_instance(folder):
    with h5py.File(folder / "all.h5", "w") as file:
        for m, order in ORDERS.items():
            for row, x in zip(order, rows(m, order), strict=True):
                if m == "image" or row % 9:
                    file[f"{IDS[row]}/{m}_features"] = frames(x, 3 + row % 5)
    return Case(["all.h5"], refused="Pass --pool mean", n=N - 4)


@case
def a_tensor_for_each_instance(folder):
    each(lambda m, x, ids: save_file(dict(zip(ids, x, strict=True)), folder / f"{m}.safetensors"))
    return Case(["image.safetensors", "text.safetensors"])


@case
def a_member_for_each_instance(folder):
    each(lambda m, x, ids: np.savez(folder / f"{m}.npz", **{i: v[None] for i, v in zip(ids, x, strict=True)}))
    return Case(["image.npz", "text.npz"])


@case
def ids_in_a_text_file_beside(folder):
    def write(m, x, ids):
        npy(folder / m / "features.npy", x)
        (folder / m / "file_names.txt").write_text("\n".join(ids))

    each(write)
    return Case(["image", "text"])


@case
def ids_in_npy_files_of_the_same_stem(folder):
    def write(m, x, ids):
        npy(folder / f"{m}_train.npy", x)
        npy(folder / f"{m}_train_labels_sorted.npy", np.array(ids))

    each(write)
    return Case(["."])


@case
def ids_given_in_a_file(folder):
    for m in DIMS:
        npy(folder / f"{m}.npy", rows(m, range(N)))
    (folder / "the.txt").write_text("\n".join(IDS) + "\n")
    return Case(["image.npy", "text.npy"], {"ids": Path("the.txt")})


@case
def rows_alone(folder):
    for m in DIMS:
        npy(folder / f"{m}_feat.npy", rows(m, range(N)))
    return Case(["image_feat.npy", "text_feat.npy"], by_row=True)


@case
def zeros_for_what_is_missing(folder):
    for m in DIMS:
        x = rows(m, range(N))
        x[4] = 0 if m == "text" else x[4]
        npy(folder / f"{m}.npy", x)
    bad = "with --on-bad missing"
    return Case(["image.npy", "text.npy"], {}, refused=bad, n=N - 1, by_row=True)


@case
def two_folders_of_shards_with_the_same_names(folder):
    for m, part, x, _ in shards(folder, "same"):
        x[:, 1] = rows(m, [0])[0, 1]
        npy(folder / m / f"{part}.npy", x)
    return Case(["image", "text"], by_row=True)


@case
def axes_of_length_one(folder):
    def fill(file, m, x, ids):
        file["features"] = x[:, None]
        file["ids"] = np.array(ids, "S8")[:, None]

    return in_hdf5(folder, fill)


@case
def regions_of_an_image(folder):
    def fill(file, m, x, ids):
        file["features"] = np.stack([frames(one, 5) for one in x])
        file["image_id"] = ids

    return in_hdf5(folder, fill, refused="Pass --pool mean")


@case
def matrices_in_a_column(folder):
    def write(m, x, ids):
        column = pa.array(x[:, None].tolist(), pa.list_(pa.list_(pa.float32())))
        pq.write_table(pa.table({"id": ids, "embedding": column}), folder / f"{m}.parquet")

    each(write)
    return Case(["image.parquet", "text.parquet"])


@case
def frames_in_a_column(folder):
    def write(m, x, ids):
        lists = [frames(one, 3 + row % 3).tolist() for row, one in enumerate(x)]
        column = pa.array(lists, pa.list_(pa.list_(pa.float32())))
        pq.write_table(pa.table({"id": ids, "embedding": column}), folder / f"{m}.parquet")

    each(write)
    return Case(["image.parquet", "text.parquet"], refused="Pass --pool mean")
