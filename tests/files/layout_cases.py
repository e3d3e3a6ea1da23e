"""Files as people have them, and what pmrl must make of them.

Every maker writes instances of two modalities whose vectors tell which instance they are of, in an order of its own
for each modality, so that a join by row where ids are known would be seen.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

N = 30
DIMS = {"image": 9, "text": 8}
IDS = [f"k{row:03d}" for row in range(N)]


def rows(modality, order, ids=IDS):
    """The vectors of a modality: their first number is the instance, their second the modality."""
    dim = DIMS.get(modality, 7)
    values = np.ones((len(order), dim), np.float32)
    values[:, 0] = np.asarray(order) + 1
    values[:, 1] = 10 + sum(map(ord, modality))
    return values


def order_of(modality):
    return np.random.default_rng(len(modality)).permutation(N)


ORDERS = {name: order_of(name) for name in DIMS}


@dataclass
class Case:
    """What to type and what it must give: at once, or once what the refusal says is typed too."""

    files: list[str]
    options: dict = field(default_factory=dict)
    names: tuple[str, ...] = ("image", "text")
    n: int = N
    by_row: bool = False
    refused: str = ""
    sides: tuple[str, ...] = ()
    texts: bool = True
    values: bool = True


CASES = {}


def case(make):
    CASES[make.__name__] = make
    return make


def npy(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


def each(write):
    for name, order in ORDERS.items():
        write(name, rows(name, order), [IDS[row] for row in order])


@case
def ids_in_a_column_of_parquet(folder):
    each(lambda m, x, ids: pq.write_table(pa.table({"id": ids, "embedding": list(x)}), folder / f"{m}.parquet"))
    return Case(["image.parquet", "text.parquet"])


def pandas_table(columns, index, name=None):
    """A table as pandas writes it, without pandas."""
    at = name or "__index_level_0__"
    table = pa.table({**columns, at: index})
    about = {"index_columns": [at], "columns": [{"name": name, "field_name": at}]}
    return table.replace_schema_metadata({b"pandas": json.dumps(about).encode()})


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


def file_per_instance(folder, suffix, shape):
    for m in DIMS:
        lacking = 3 if m == "image" else 20
        (folder / m).mkdir()
        for row in set(range(N)) - {lacking}:
            x = rows(m, [row]).reshape(shape)
            path = folder / m / f"{IDS[row]}{suffix}"
            if suffix == ".npy":
                np.save(path, x)
            elif suffix == ".npz":
                np.savez(path, features=x)
            else:
                with h5py.File(path, "w") as file:
                    file["features"] = x


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


def frames(x, length):
    """Frames whose mean is x, and the first of which is x itself."""
    spread = np.zeros((length, len(x)), np.float32)
    if length > 2:
        spread[1, 2], spread[2, 2] = 5, -5
    return x + spread


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
    def write(m, x, ids):
        with h5py.File(folder / f"{m}.h5", "w") as file:
            for key, vector in zip(ids, x, strict=True):
                file[key] = vector.astype("f2")

    each(write)
    return Case(["image.h5", "text.h5"])


@case
def a_numbered_dataset_with_the_id_as_an_attribute(folder):
    def write(m, x, ids):
        with h5py.File(folder / f"{m}.h5", "w") as file:
            for row, (key, vector) in enumerate(zip(ids, x, strict=True)):
                file.create_dataset(str(row), data=vector).attrs["original_id"] = key

    each(write)
    return Case(["image.h5", "text.h5"])


@case
def frames_in_a_dataset_for_each_instance(folder):
    def write(m, x, ids):
        with h5py.File(folder / f"{m}.h5", "w") as file:
            for key, vector in zip(ids, x, strict=True):
                file[key] = frames(vector, 6)

    each(write)
    return Case(["image.h5", "text.h5"], refused="Pass --pool mean")


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


def shards(folder, name, suffix=".npy"):
    for m in DIMS:
        x = rows("image", range(N)) if name == "same" else rows(m, range(N))
        for part, at in enumerate(np.array_split(np.arange(N), 3)):
            yield m, part, x[at], [IDS[row] for row in at]


@case
def two_folders_of_shards_with_the_same_names(folder):
    for m, part, x, _ in shards(folder, "same"):
        x[:, 1] = rows(m, [0])[0, 1]
        npy(folder / m / f"{part}.npy", x)
    return Case(["image", "text"], by_row=True)


@case
def axes_of_length_one(folder):
    def write(m, x, ids):
        with h5py.File(folder / f"{m}.h5", "w") as file:
            file["features"] = x[:, None]
            file["ids"] = np.array(ids, "S8")[:, None]

    each(write)
    return Case(["image.h5", "text.h5"])


@case
def regions_of_an_image(folder):
    def write(m, x, ids):
        with h5py.File(folder / f"{m}.h5", "w") as file:
            file["features"] = np.stack([frames(one, 5) for one in x])
            file["image_id"] = ids

    each(write)
    return Case(["image.h5", "text.h5"], refused="Pass --pool mean")


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


def saved(folder, table, name="data-00000-of-00001.arrow"):
    folder.mkdir(parents=True)
    with pa.ipc.new_stream(folder / name, table.schema) as writer:
        writer.write_table(table, max_chunksize=11)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    (folder / "dataset_info.json").write_text("{}")


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
    def write(m, x, ids):
        with h5py.File(folder / f"{m}.h5", "w") as file:
            group = file.create_group(f"{m}_frame")
            group.attrs["pandas_type"] = "frame"
            group["axis0"] = np.array([f"c{k}" for k in range(x.shape[1])], "S4")
            group["axis1"] = np.array(ids, "S8")
            group["block0_items"] = group["axis0"][:]
            group["block0_values"] = x

    each(write)
    return Case(["image.h5", "text.h5"])


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


def observations(group, ids):
    obs = group.create_group("obs")
    obs.attrs["_index"] = "_index"
    obs["_index"] = ids
    obs["batch/codes"] = np.zeros(len(ids), "i1")
    obs["batch/categories"] = ["b1"]


@case
def anndata_with_embeddings(folder):
    def write(m, x, ids):
        with h5py.File(folder / f"{m}.h5ad", "w") as file:
            observations(file, ids)
            if m == "image":
                file["obsm/X_pca"], file["obsm/X_umap"] = x, x[:, :2]
                file["varm/PCs"] = np.ones((N, 5), np.float32)
                sparse = file.create_group("X")
                sparse.attrs["encoding-type"], sparse.attrs["shape"] = "csr_matrix", (N, 50)
            else:
                file["X"] = x

    each(write)
    return Case(["image.h5ad", "text.h5ad"], sides=("batch",))


@case
def a_sparse_matrix_and_nothing_else(folder):
    def write(m, x, ids):
        with h5py.File(folder / f"{m}.h5ad", "w") as file:
            observations(file, ids)
            sparse_matrix(file, x)

    each(write)
    return Case(["image.h5ad", "text.h5ad"], refused="Pass --components 7", values=False)


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


def sparse_matrix(group, x, kind="csr"):
    """A sparse X as AnnData writes it."""
    from scipy import sparse

    matrix = sparse.csr_array(x) if kind == "csr" else sparse.csc_array(x)
    inner = group.create_group("X")
    inner.attrs["encoding-type"], inner.attrs["encoding-version"] = f"{kind}_matrix", "0.1.0"
    inner.attrs["shape"] = x.shape
    for part in ("data", "indices", "indptr"):
        inner[part] = getattr(matrix, part)


@case
def names_of_observations_that_may_be_null(folder):
    def write(m, x, ids):
        with h5py.File(folder / f"{m}.h5ad", "w") as file:
            obs = file.create_group("obs")
            obs.attrs["_index"] = "_index"
            names = obs.create_group("_index")
            names.attrs["encoding-type"] = "nullable-string-array"
            names["values"], names["mask"] = ids, np.zeros(N, bool)
            file["X"] = x

    each(write)
    return Case(["image.h5ad", "text.h5ad"])
