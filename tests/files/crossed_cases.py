"""Layouts made by crossing what they differ in: where the ids are, widths, missing instances, shards, splits."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from itertools import product

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
from safetensors.numpy import save_file

from tests.files.cases import IDS, Case, N, npy, pandas_table, rows

__all__ = ["ALL", "Crossed", "make"]

WIDTHS = {"equal": {"image": 8, "text": 8}, "unequal": {"image": 9, "text": 8}}
LACKING = {"image": (3, 17), "text": (5,)}
PARTS = {"train": range(20), "test": range(20, N)}
FORMATS = {
    "key": ("h5", "npz", "safetensors", "json", "files"),
    "index": ("parquet", "feather"),
    "column": ("parquet", "csv", "jsonl", "h5", "npz", "arrow"),
    "beside": ("npy", "txt"),
}


@dataclass(frozen=True)
class Crossed:
    """One crossing.

    Args:
        ids: where they are.
        format: of the files.
        widths: ``equal`` or ``unequal`` over modalities.
        missing: whether each modality lacks some instances.
        shards: files of each modality (and split).
        split: whether the files are those of a split.
    """

    ids: str
    format: str
    widths: str
    missing: bool
    shards: int
    split: bool

    def __str__(self) -> str:
        words = [f"{self.ids} in {self.format}", f"{self.widths} widths"]
        words += ["missing"] if self.missing else []
        words += [f"{self.shards} shards"] if self.shards > 1 else []
        return ", ".join(words + (["split"] if self.split else []))


ALL = [
    Crossed(ids, form, widths, missing, shards, split)
    for ids, forms in FORMATS.items()
    for form, widths, missing, shards, split in product(forms, WIDTHS, (False, True), (1, 2), (False, True))
    if not (form == "files" and shards > 1)
]


def make(folder, crossed):
    """Write the files; return what to type and what it must give."""
    for m, dim in WIDTHS[crossed.widths].items():
        for part, numbers in PARTS.items() if crossed.split else {"": range(N)}.items():
            left = [row for row in numbers if not (crossed.missing and row in LACKING[m])]
            order = np.random.default_rng(len(m) + len(part)).permutation(left)
            stem = f"{m}_{part}" if part else m
            for shard, at in enumerate(np.array_split(order, crossed.shards)):
                x = rows(m, at)[:, :dim] if dim <= 8 else rows(m, at)
                name = f"{stem}-{shard:05d}-of-{crossed.shards:05d}" if crossed.shards > 1 else stem
                _write(folder, crossed, name, x[:, :dim], [IDS[row] for row in at])
    lost = sum(map(len, LACKING.values())) if crossed.missing else 0
    files = sorted(one.name for one in folder.iterdir() if one.suffix not in (".txt",) and "_ids" not in one.name)
    if crossed.format == "files":
        files = ["image", "text"]
    return Case(files, n=N - lost, sides=("split",) if crossed.split else ())


def _write(folder, crossed, name, x, ids):
    write = globals()[f"_{crossed.ids}_{crossed.format}"]
    write(folder, name, x, ids)


def _key_h5(folder, name, x, ids):
    with h5py.File(folder / f"{name}.h5", "w") as file:
        for key, vector in zip(ids, x, strict=True):
            file[key] = vector


def _key_npz(folder, name, x, ids):
    np.savez(folder / f"{name}.npz", **dict(zip(ids, x, strict=True)))


def _key_safetensors(folder, name, x, ids):
    save_file(dict(zip(ids, np.ascontiguousarray(x), strict=True)), folder / f"{name}.safetensors")


def _key_json(folder, name, x, ids):
    (folder / f"{name}.json").write_text(json.dumps(dict(zip(ids, x.tolist(), strict=True))))


def _key_files(folder, name, x, ids):
    modality, _, part = name.partition("_")
    for key, vector in zip(ids, x, strict=True):
        npy(folder / modality / part / f"{key}.npy", vector)


def _index_table(x, ids):
    return pandas_table({"embedding": list(x)}, ids)


def _index_parquet(folder, name, x, ids):
    pq.write_table(_index_table(x, ids), folder / f"{name}.parquet")


def _index_feather(folder, name, x, ids):
    feather.write_feather(_index_table(x, ids), folder / f"{name}.feather")


def _column_parquet(folder, name, x, ids):
    pq.write_table(pa.table({"id": ids, "embedding": list(x)}), folder / f"{name}.parquet")


def _column_arrow(folder, name, x, ids):
    table = pa.table({"id": ids, "embedding": list(x)})
    with pa.ipc.new_stream(folder / f"{name}.arrow", table.schema) as writer:
        writer.write_table(table)


def _column_csv(folder, name, x, ids):
    with (folder / f"{name}.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", *(f"f{k}" for k in range(x.shape[1]))])
        writer.writerows([key, *vector.tolist()] for key, vector in zip(ids, x, strict=True))


def _column_jsonl(folder, name, x, ids):
    lines = [json.dumps({"id": key, "embedding": vector.tolist()}) for key, vector in zip(ids, x, strict=True)]
    (folder / f"{name}.jsonl").write_text("\n".join(lines))


def _column_h5(folder, name, x, ids):
    with h5py.File(folder / f"{name}.h5", "w") as file:
        file["features"], file["ids"] = x, ids


def _column_npz(folder, name, x, ids):
    np.savez(folder / f"{name}.npz", features=x, ids=np.array(ids))


def _beside_npy(folder, name, x, ids):
    npy(folder / f"{name}.npy", x)
    npy(folder / f"{name}_ids.npy", np.array(ids))


def _beside_txt(folder, name, x, ids):
    npy(folder / f"{name}.npy", x)
    (folder / f"{name}_ids.txt").write_text("\n".join(ids) + "\n")
