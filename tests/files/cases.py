"""Files as people have them, and what pmrl must make of them.

Every maker writes instances of two modalities whose vectors tell which instance they are of, in an order of its own
for each modality, so that a join by row where ids are known would be seen.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import h5py
import numpy as np
import pyarrow as pa

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


def in_hdf5(folder, fill, suffix="h5", **said):
    """Write an HDF5 file for each modality, which ``fill(file, m, x, ids)`` fills; return the case."""

    def write(m, x, ids):
        with h5py.File(folder / f"{m}.{suffix}", "w") as file:
            fill(file, m, x, ids)

    each(write)
    return Case([f"image.{suffix}", f"text.{suffix}"], **said)


def pandas_table(columns, index, name=None):
    """A table as pandas writes it, without pandas."""
    at = name or "__index_level_0__"
    table = pa.table({**columns, at: index})
    about = {"index_columns": [at], "columns": [{"name": name, "field_name": at}]}
    return table.replace_schema_metadata({b"pandas": json.dumps(about).encode()})


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


def frames(x, length):
    """Frames whose mean is x, and the first of which is x itself."""
    spread = np.zeros((length, len(x)), np.float32)
    if length > 2:
        spread[1, 2], spread[2, 2] = 5, -5
    return x + spread


def shards(folder, name, suffix=".npy"):
    for m in DIMS:
        x = rows("image", range(N)) if name == "same" else rows(m, range(N))
        for part, at in enumerate(np.array_split(np.arange(N), 3)):
            yield m, part, x[at], [IDS[row] for row in at]


def saved(folder, table, name="data-00000-of-00001.arrow"):
    folder.mkdir(parents=True)
    with pa.ipc.new_stream(folder / name, table.schema) as writer:
        writer.write_table(table, max_chunksize=11)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    (folder / "dataset_info.json").write_text("{}")


def observations(group, ids):
    obs = group.create_group("obs")
    obs.attrs["_index"] = "_index"
    obs["_index"] = ids
    obs["batch/codes"] = np.zeros(len(ids), "i1")
    obs["batch/categories"] = ["b1"]


def sparse_matrix(group, x, kind="csr"):
    """A sparse X as AnnData writes it."""
    from scipy import sparse

    matrix = sparse.csr_array(x) if kind == "csr" else sparse.csc_array(x)
    inner = group.create_group("X")
    inner.attrs["encoding-type"], inner.attrs["encoding-version"] = f"{kind}_matrix", "0.1.0"
    inner.attrs["shape"] = x.shape
    for part in ("data", "indices", "indptr"):
        inner[part] = getattr(matrix, part)
