"""More layouts of files: names in other orders, ids in other places, text in other shapes."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.files.layout_cases import DIMS, IDS, ORDERS, Case, N, case, each, frames, npy, rows

BOTH = ("train", range(20)), ("val", range(20, N))


def parquet(path, columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


@case
def members_named_by_id_and_modality(folder):
    members = {}
    for m, order in ORDERS.items():
        left = [row for row in order if m == "image" or row % 9]
        members |= {f"{IDS[row]}/{m}": x for row, x in zip(left, rows(m, left), strict=True)}
    np.savez(folder / "all.npz", **members)
    return Case(["all.npz"], n=N - 4)


@case
def members_named_by_modality_and_id(folder):
    named = {}
    each(lambda m, x, ids: named.update({f"{m}/{i}": v for i, v in zip(ids, x, strict=True)}))
    np.savez(folder / "all.npz", **named)
    return Case(["all.npz"])


@case
def groups_named_by_modality_of_datasets_named_by_id(folder):
    with h5py.File(folder / "all.h5", "w") as file:
        each(lambda m, x, ids: [file.create_dataset(f"{m}/{i}", data=v) for i, v in zip(ids, x, strict=True)])
    return Case(["all.h5"])


@case
def groups_named_by_split_of_datasets_named_by_id(folder):
    for m, order in ORDERS.items():
        with h5py.File(folder / f"{m}.h5", "w") as file:
            for row, x in zip(order, rows(m, order), strict=True):
                file[f"{'train' if row < 20 else 'test'}/{IDS[row]}"] = x
    return Case(["image.h5", "text.h5"], sides=("split",))


@case
def columns_of_json(folder):
    each(lambda m, x, ids: (folder / f"{m}.json").write_text(json.dumps({"ids": ids, "embeddings": x.tolist()})))
    return Case(["image.json", "text.json"])


def lines(x, ids, mark):
    return "".join(mark.join([i, *map(str, v.tolist())]) + "\n" for i, v in zip(ids, x, strict=True))


@case
def csv_without_names(folder):
    each(lambda m, x, ids: (folder / f"{m}.csv").write_text(lines(x, ids, ",")))
    return Case(["image.csv", "text.csv"])


@case
def csv_with_semicolons(folder):
    def write(m, x, ids):
        names = ";".join(["id", *(f"f{k}" for k in range(x.shape[1]))])
        (folder / f"{m}.csv").write_text(f"{names}\n{lines(x, ids, ';')}")

    each(write)
    return Case(["image.csv", "text.csv"])


@case
def vectors_as_text_without_brackets(folder):
    def write(m, x, ids):
        parquet(folder / f"{m}.parquet", {"id": ids, "embedding": [" ".join(map(str, v)) for v in x.tolist()]})

    each(write)
    return Case(["image.parquet", "text.parquet"])


@case
def ids_in_a_column_of_structs(folder):
    def write(m, x, ids):
        parquet(folder / f"{m}.parquet", {"meta": [{"id": i, "size": [1]} for i in ids], "embedding": list(x)})

    each(write)
    return Case(["image.parquet", "text.parquet"], refused="Type --id-column meta.id")


@case
def partitions_of_a_table(folder):
    def write(m, x, ids):
        for part in range(2):
            columns = {"id": ids[part::2], "embedding": list(x[part::2])}
            parquet(folder / m / f"part={part}" / "0.parquet", columns)

    each(write)
    return Case(["image", "text"])


@case
def a_folder_for_each_split_and_in_it_one_for_each_modality(folder):
    for split, part in BOTH:
        for m in DIMS:
            order = np.random.default_rng(len(m)).permutation(part)
            npy(folder / "all" / split / m / "features.npy", rows(m, order))
            npy(folder / "all" / split / m / "ids.npy", np.array([IDS[row] for row in order]))
    return Case(["all"], sides=("split",))


@case
def ids_of_numbered_shards_named_after_the_modality(folder):
    def write(m, x, ids):
        for part in range(3):
            npy(folder / f"{m}_emb_{part}.npy", x[part::3])
            npy(folder / f"{m}_ids_{part}.npy", np.array(ids[part::3]))

    each(write)
    return Case(["."])


@case
def ids_in_json_beside(folder):
    def write(m, x, ids):
        npy(folder / f"{m}.npy", x)
        (folder / f"{m}_ids.json").write_text(json.dumps(ids))

    each(write)
    return Case(["image.npy", "text.npy"])


@case
def ids_in_a_table_of_the_same_name_beside(folder):
    def write(m, x, ids):
        npy(folder / f"{m}.npy", x)
        (folder / f"{m}.csv").write_text("id,label\n" + "".join(f"{i},a\n" for i in ids))

    each(write)
    return Case(["image.npy", "text.npy"], sides=("label",))


@case
def ids_in_a_table_of_metadata_beside(folder):
    def write(m, x, ids):
        npy(folder / f"{m}_emb.npy", x)
        parquet(folder / f"{m}_meta.parquet", {"id": ids, "label": ["a"] * N})

    each(write)
    return Case(["."], sides=("label",))


@case
def names_of_files_that_begin_with_the_modality(folder):
    each(lambda m, x, ids: [npy(folder / m / f"{m}_{i}.npy", v) for i, v in zip(ids, x, strict=True)])
    return Case(["image", "text"])


@case
def files_of_one_instance_in_a_folder_for_each_class(folder):
    def write(m, x, ids):
        for row, (i, v) in enumerate(zip(ids, x, strict=True)):
            npy(folder / m / f"class{row % 3}" / f"{i}.npy", v)

    each(write)
    return Case(["image", "text"])


@case
def frames_in_files_that_count_up(folder):
    for m in DIMS:
        for row in range(N):
            npy(folder / m / f"{row}.npy", frames(rows(m, [row])[0], 4))
    return Case(["image", "text"], refused="Pass --pool mean if each is an instance", texts=False)


@case
def batches_that_count_up(folder):
    for m in DIMS:
        for part in range(15):
            npy(folder / m / f"{part}.npy", rows(m, range(2 * part, 2 * part + 2)))
    return Case(["image", "text"], {"by_row": True}, by_row=True)


@case
def labels_that_are_as_distinct_as_the_names(folder):
    def write(m, x, ids):
        with h5py.File(folder / f"{m}.h5", "w") as file:
            file["feats"], file["video_names"], file["labels"] = x, ids, np.arange(N)

    each(write)
    return Case(["image.h5", "text.h5"], refused="Type --id-column video_names")


@case
def a_usual_name_of_ids_that_repeat_and_a_column_that_does_not(folder):
    def write(m, x, ids):
        parquet(folder / f"{m}.parquet", {"url": [i[-1] for i in ids], "hash": ids, "embedding": list(x)})

    each(write)
    return Case(["image.parquet", "text.parquet"], refused="Type --id-column hash")


@case
def matlab_with_numbers_as_ids(folder):
    for m, order in ORDERS.items():
        with h5py.File(folder / f"{m}.mat", "w") as file:
            file["feat"], file["ids"] = rows(m, order).T, np.array([order], float)
    return Case(["image.mat", "text.mat"], texts=False)


@case
def matlab_with_rows_of_characters_as_ids(folder):
    def write(m, x, ids):
        with h5py.File(folder / f"{m}.mat", "w") as file:
            file["feat"] = x.T
            file["ids"] = np.array([list(map(ord, i)) for i in ids], np.uint16).T
            file["ids"].attrs["MATLAB_class"] = np.bytes_("char")

    each(write)
    return Case(["image.mat", "text.mat"])


@case
def matlab_with_cells_of_text_as_ids(folder):
    def write(m, x, ids):
        with h5py.File(folder / f"{m}.mat", "w") as file:
            file["feat"] = x.T
            references = []
            for row, i in enumerate(ids):
                cell = file.create_dataset(f"#refs#/{row}", data=np.array([[ord(one)] for one in i], np.uint16))
                cell.attrs["MATLAB_class"] = np.bytes_("char")
                references.append(cell.ref)
            file.create_dataset("ids", data=np.array([references], h5py.ref_dtype), dtype=h5py.ref_dtype)
            file["ids"].attrs["MATLAB_class"] = np.bytes_("cell")

    each(write)
    return Case(["image.mat", "text.mat"])
