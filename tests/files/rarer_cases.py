"""More layouts of files: names in other orders, ids in other places, text in other shapes."""

from __future__ import annotations

import io
import json
import tarfile

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file
from scipy.io import savemat

from tests.files.cases import DIMS, IDS, ORDERS, Case, N, case, each, frames, in_hdf5, npy, rows

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
    def fill(file, m, x, ids):
        file["feats"], file["video_names"], file["labels"] = x, ids, np.arange(N)

    return in_hdf5(folder, fill, refused="Type --id-column video_names")


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
    def fill(file, m, x, ids):
        file["feat"] = x.T
        file["ids"] = np.array([list(map(ord, i)) for i in ids], np.uint16).T
        file["ids"].attrs["MATLAB_class"] = np.bytes_("char")

    return in_hdf5(folder, fill, "mat")


@case
def matlab_with_cells_of_text_as_ids(folder):
    def fill(file, m, x, ids):
        file["feat"] = x.T
        references = []
        for row, i in enumerate(ids):
            cell = file.create_dataset(f"#refs#/{row}", data=np.array([[ord(one)] for one in i], np.uint16))
            cell.attrs["MATLAB_class"] = np.bytes_("char")
            references.append(cell.ref)
        file.create_dataset("ids", data=np.array([references], h5py.ref_dtype), dtype=h5py.ref_dtype)
        file["ids"].attrs["MATLAB_class"] = np.bytes_("cell")

    return in_hdf5(folder, fill, "mat")


@case
def matlab_of_older_versions(folder):
    def write(m, x, ids):
        savemat(folder / f"{m}.mat", {"feat": x, "ids": np.array(ids, object)}, do_compression=m == "text")

    each(write)
    return Case(["image.mat", "text.mat"])


@case
def matlab_of_older_versions_with_characters_and_numbers(folder):
    for m, order in ORDERS.items():
        savemat(folder / f"{m}.mat", {"feat": rows(m, order).astype(float), "ids": [IDS[row] for row in order]})
    return Case(["image.mat", "text.mat"])


def word_lines(x, ids):
    return [" ".join([i, *(f"{value:.9g}" for value in vector)]) + "\n" for i, vector in zip(ids, x, strict=True)]


@case
def word_vectors_with_and_without_a_first_line(folder):
    def write(m, x, ids):
        head = f"{N} {x.shape[1]}\n" if m == "image" else ""
        (folder / f"{m}{'.vec' if head else '.txt'}").write_text(head + "".join(word_lines(x, ids)))

    each(write)
    return Case(["image.vec", "text.txt"])


@case
def word_vectors_in_binary(folder):
    def write(m, x, ids):
        entries = (f"{i} ".encode() + vector.tobytes() + b"\n" for i, vector in zip(ids, x, strict=True))
        (folder / f"{m}.bin").write_bytes(f"{N} {x.shape[1]}\n".encode() + b"".join(entries))

    each(write)
    return Case(["image.bin", "text.bin"])


@case
def records_of_an_id_and_a_vector(folder):
    def write(m, x, ids):
        kind = [("id", "U4"), ("embedding", ">f4", x.shape[1]), ("label", "i4")]
        np.save(folder / f"{m}.npy", np.array(list(zip(ids, x, range(N), strict=True)), kind))

    each(write)
    return Case(["image.npy", "text.npy"])


@case
def records_of_numbers(folder):
    def write(m, x, ids):
        kind = [("key", "S4"), *((f"f{k}", "f4") for k in range(x.shape[1]))]
        np.save(folder / f"{m}.npy", np.array([(i, *vector) for i, vector in zip(ids, x, strict=True)], kind))

    each(write)
    return Case(["image.npy", "text.npy"])


def by_dots(name):
    return {name(i, m): x for m, order in ORDERS.items() for i, x in zip(IDS, rows(m, range(N)), strict=True)}


@case
def tensors_named_by_id_and_modality_with_a_dot(folder):
    save_file(by_dots("{0}.{1}".format), folder / "all.safetensors")
    return Case(["all.safetensors"])


@case
def members_named_by_modality_and_id_with_a_dot(folder):
    np.savez(folder / "all.npz", **by_dots("{1}.{0}".format))
    return Case(["all.npz"])


@case
def names_of_files_as_keys_are_no_modalities(folder):
    def write(m, x, ids):
        names = [f"{i}.{('jpg', 'png')[int(i[1:]) % 2]}" for i in ids]
        np.savez(folder / f"{m}.npz", **dict(zip(names, x, strict=True)))

    each(write)
    return Case(["image.npz", "text.npz"], texts=False)


def tar(path, members):
    """A tar as WebDataset writes it."""
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            if isinstance(content, np.ndarray):
                buffer = io.BytesIO()
                np.save(buffer, content)
                content = buffer.getvalue()
            about = tarfile.TarInfo(name)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))


@case
def web_dataset_with_an_array_of_each_modality(folder):
    pair = [rows(m, range(N)) for m in DIMS]
    (folder / "data").mkdir()
    for part in range(2):
        members = []
        for row in range(part * 20, min(N, part * 20 + 20)):
            members += [(f"{IDS[row]}.jpg", b"an image"), (f"{IDS[row]}.json", b"{}"), (f"{IDS[row]}.txt", b"words")]
            members += [(f"{IDS[row]}.{m}.npy", x[row]) for m, x in zip(DIMS, pair, strict=True)]
        tar(folder / "data" / f"{part:05d}.tar", members)
        table = pa.table({"key": IDS[part * 20 : part * 20 + 20], "status": ["success"] * min(20, N - part * 20)})
        pq.write_table(table, folder / "data" / f"{part:05d}.parquet")
    return Case(["data"], sides=("status",))


@case
def web_dataset_for_each_modality(folder):
    def write(m, x, ids):
        (folder / m).mkdir()
        for part in range(2):
            at = slice(part * 20, part * 20 + 20)
            tar(folder / m / f"{part:05d}.tar", [(f"{i}.npy", v) for i, v in zip(ids[at], x[at], strict=True)])

    each(write)
    return Case(["image", "text"])


@case
def frames_in_a_web_dataset(folder):
    def write(m, x, ids):
        tar(folder / f"{m}.tar", [(f"{i}.npy", frames(v, 3)) for i, v in zip(ids, x, strict=True)])

    each(write)
    return Case(["image.tar", "text.tar"], refused="Pass --pool mean")


@case
def img2dataset_files_with_an_array_beside_each_image(folder):
    """``output_format=files``: a folder for each shard, its table beside it, statistics that are none of ours."""

    def write(m, x, ids):
        for row, vector in zip(ids, x, strict=True):
            part = int(row[1:]) // 20
            at = folder / "data" / m / f"{part:05d}"
            at.mkdir(parents=True, exist_ok=True)
            key = f"{part:05d}{int(row[1:]) % 20:04d}"
            np.save(at / f"{key}.npy", vector)
            (at / f"{key}.json").write_text("{}")
            (at / f"{key}.txt").write_text("words")
        for part in range(2):
            top = folder / "data" / m
            keys = [f"{part:05d}{row:04d}" for row in range(20 if part == 0 else N - 20)]
            pq.write_table(pa.table({"key": keys, "caption": ["of it"] * len(keys)}), top / f"{part:05d}.parquet")
            (top / f"{part:05d}_stats.json").write_text("{}")

    each(write)
    return Case(["data/image", "data/text"], sides=("caption",), texts=False)
