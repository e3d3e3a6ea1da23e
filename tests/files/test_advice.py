"""What a refusal says to type is typed here, and gives every instance its own vectors."""

import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pmrl_cli.data.read_options import ReadOptions
from pmrl_cli.errors import PmrlError
from pmrl_cli.files.artifacts.store import ingest_store
from pmrl_cli.files.join.dataset import read_dataset
from tests.files.cases import DIMS, IDS, ORDERS, Case, N, each, frames, npy, rows
from tests.files.test_layouts import check

BOTH = ["image.npz", "text.npz"]


def named(members=lambda m, x, ids: {"features": x, "ids": np.array(ids)}):
    each(lambda m, x, ids: np.savez(f"{m}.npz", **members(m, x, ids)))


def matlab_by_another_name():
    with h5py.File("all.h5", "w") as file:
        for m in DIMS:
            file[m] = rows(m, range(N)).T
    yield ["all.h5"], {}, "They look transposed.*give the file a name that ends in .mat"
    shutil.copy("all.h5", "all.mat")
    yield ["all.mat"], {}, Case([], by_row=True)


def parts_or_instances():
    for m in DIMS:
        for part in range(15):
            npy(Path(m) / f"{part}.npy", rows(m, range(2 * part, 2 * part + 2)))
    said = "Pass --pool mean if each is an instance, or --by-row if they are parts"
    yield ["image", "text"], {}, said
    yield ["image", "text"], {"by_row": True}, Case([], by_row=True)
    yield ["image", "text"], {"pool": "mean"}, Case([], n=15, values=False, texts=False)


def patches_with_coordinates():
    for m, order in ORDERS.items():
        Path(m).mkdir()
        for row, x in zip(order, rows(m, order), strict=True):
            with h5py.File(Path(m) / f"{IDS[row]}.h5", "w") as file:
                file["features"] = frames(x, 3 + row % 4)
                file["coords"] = np.zeros((3 + row % 4, 2), int)
    yield [f"{m}/k000.h5" for m in DIMS], {}, "Give the folder of such files and --pool mean"
    yield ["image", "text"], {"pool": "mean"}, Case([])


def ids_of_two_columns():
    named(lambda m, x, ids: {"features": rows(m, range(N)), "ids": np.zeros((N, 2), int)})
    yield BOTH, {}, "or pass --by-row if row i is the same instance in all files"
    yield BOTH, {"by_row": True}, Case([], by_row=True)


def ids_of_another_length():
    named(lambda m, x, ids: {"features": x, "ids": np.array(ids[1:]), "mine": np.array(ids)})
    yield BOTH, {}, "or choose another column with --id-column"
    yield BOTH, {"id_column": "mine"}, Case([])


def ids_in_a_file_of_another_length():
    for m in DIMS:
        np.save(f"{m}.npy", rows(m, range(N)))
    Path("list.txt").write_text("\n".join(IDS[1:]))
    yield ["image.npy", "text.npy"], {"ids": "list.txt"}, "Give one id for each row with --ids"
    Path("list.txt").write_text("\n".join(IDS))
    yield ["image.npy", "text.npy"], {"ids": "list.txt"}, Case([])


def several_arrays():
    named(lambda m, x, ids: {"layer1": x, "layer2": x[:, :3], "ids": np.array(ids)})
    yield BOTH, {}, "Type image.npz#layer1, or --feature-column layer1"
    yield ["image.npz#layer1", "text.npz#layer1"], {}, Case([])
    yield BOTH, {"feature_column": "layer1"}, Case([])


def a_name_before_a_folder_that_names_its_own():
    each(lambda m, x, ids: npy(Path("clip") / f"{'img' if m == 'image' else m}_emb" / "emb_0.npy", x))
    yield ["mine=clip"], {}, "Type clip"
    yield ["clip"], {}, Case([], values=False, texts=False)


def a_side_table_without_ids():
    named()
    pq.write_table(pa.table({"whose": ["x", *IDS[1:4]], "label": list("abcd")}), "few.parquet")
    pq.write_table(
        pa.table({"whose": [f"x{i}" for i in range(9)] + IDS[:1], "label": list("abcdefghij")}), "s.parquet"
    )
    yield BOTH, {"labels": "s.parquet"}, "Name it with --id-column"
    yield BOTH, {"labels": "s.parquet", "id_column": "whose"}, Case([], sides=("label",))


@pytest.mark.parametrize(
    "case",
    [
        matlab_by_another_name,
        parts_or_instances,
        patches_with_coordinates,
        ids_of_two_columns,
        ids_of_another_length,
        ids_in_a_file_of_another_length,
        several_arrays,
        a_name_before_a_folder_that_names_its_own,
        a_side_table_without_ids,
    ],
    ids=lambda case: case.__name__,
)
def test_what_is_said_to_type_is_right(tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    for files, options, wanted in case():
        if isinstance(wanted, str):
            with pytest.raises(PmrlError) as caught:
                read_dataset(files, **options)
            said = [str(caught.value), *map(str, caught.value.more)]
            assert any(re.search(wanted, one) for one in said), said
        else:
            check(read_dataset(files, **options), wanted, texts=wanted.texts)


def test_pairs_go_into_a_store_as_the_refusal_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named(lambda m, x, ids: {"features": x, "ids": np.array([IDS[0], *ids[1:]] if m == "text" else ids)})
    with pytest.raises(PmrlError, match="Use one of those, or give the files and --on-repeat pair to fit"):
        ingest_store(BOTH, Path("store"), ReadOptions(on_repeat="pair"))
    for way in ("mean", "first"):
        ingest_store(BOTH, Path("store"), ReadOptions(on_repeat=way))
    assert len(read_dataset(BOTH, on_repeat="pair")) >= N - 2
