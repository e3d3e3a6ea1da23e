"""Every fault of the data is named by file, row and id: by class, in every format that can hold it."""

import ast
import json
import os
import pickle  # noqa: TID251 - to make what must be refused
import signal
import subprocess
import sys
import time
import zipfile

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from makers import good
from test_isolated import ROOT

from pmrl_cli.data.validate import MAX_ID_BYTES
from pmrl_cli.errors import DataError, Place, PolicyError
from pmrl_cli.files.formats.probe import probe
from pmrl_cli.files.join.dataset import read_dataset
from tests.limits import HUNG
from tests.typed import pmrl

ROWS = 40
NAMES = [f"i{row}" for row in range(ROWS)]
BAD = [3, 5, 8, 13, 21, 34]
"""Six offenders: five are named, all are counted."""


def features():
    return np.random.default_rng(0).normal(size=(ROWS, 4)).astype(np.float32)


def value(number):
    def spoil(x, ids):
        x[BAD, 1] = number
        return x, ids

    return spoil


def no_length(x, ids):
    x[BAD] = [0.0, -0.0, 0.0, 0.0]
    return x, ids


def ids_become(new):
    def spoil(x, ids):
        ids = list(ids)
        for row in BAD:
            ids[row] = new(row)
        return x, ids

    return spoil


def ragged(x, ids):
    rows = [list(row) for row in x]
    for row in BAD:
        rows[row] = rows[row][:2]
    return rows, ids


def write(folder, kind, x, ids):
    path = folder / f"x.{kind}"
    if kind == "h5":
        with h5py.File(path, "w") as file:
            file["features"] = x
            file.create_dataset("ids", data=ids, dtype=h5py.string_dtype())
    elif kind == "npz":
        np.savez(path, features=x, ids=np.array(ids))
    else:
        binary = any(isinstance(i, bytes) for i in ids)
        values = pa.array([i.encode() if isinstance(i, str) and binary else i for i in ids])
        pq.write_table(pa.table({"ids": values, "features": list(x)}), path, row_group_size=10)
    return path


# what, how it comes about, the formats that can hold it, the id that is reported
ROW_FAULTS = {
    "non-finite value": [
        (value(np.nan), ("h5", "npz", "parquet"), NAMES[3]),
        (value(np.inf), ("h5", "npz", "parquet"), NAMES[3]),
        (value(-np.inf), ("h5", "npz", "parquet"), NAMES[3]),
    ],
    "zero vector": [(no_length, ("h5", "npz", "parquet"), NAMES[3])],
    "duplicate id": [(ids_become(lambda row: "i0"), ("h5", "npz", "parquet"), "i0")],
    "empty id": [(ids_become(lambda row: ""), ("h5", "npz", "parquet"), None)],
    "missing id": [(ids_become(lambda row: None), ("parquet",), None)],
    "id is not UTF-8 text": [(ids_become(lambda row: b"\xff%d" % row), ("h5", "parquet"), "\ufffd3")],
    "id too long": [
        (ids_become(lambda row: f"{row}" + "x" * MAX_ID_BYTES), ("h5", "npz", "parquet"), "3" + "x" * MAX_ID_BYTES)
    ],
    "vectors differ in length": [(ragged, ("parquet",), NAMES[3])],
}
CASES = [
    pytest.param(what, spoil, kind, named, id=f"{what}-{number}-{kind}")
    for what, ways in ROW_FAULTS.items()
    for number, (spoil, kinds, named) in enumerate(ways)
    for kind in kinds
]

# Faults of a file or an array as a whole, where no row is at fault.
WHOLE_FAULTS = {
    "a group is in more than one part of the split",  # names ids; a side column has no file of its own
    "ambiguous array",
    "array cannot be features",
    "arrays of one instance each differ in shape",
    "features cannot be read",
    "file cannot be read",
    "folder holds no feature file",
    "folder holds no features",
    "folder holds no side table",
    "folders of clip-retrieval differ",
    "ids and rows differ in number",
    "no clear ids, and several columns that could be them",
    "ids are of a type that cannot name instances",
    "ids differ by a prefix or suffix",
    "ids of mixed type",
    "files of one instance each, or parts of one array",
    "integer features",
    "list without ids",
    "modalities differ in rows",
    "modality name cannot be a file name",
    "modality name cannot be shown",
    "no features",
    "no file has ids and rows differ in number",
    "no ids",
    "no instance in common",
    "no instance left",
    "no modality",
    "no rows",
    "no such array",
    "no such side column",
    "no vector of one instance",
    "none of the instances to exclude is in the data",
    "not a file",
    "one file or group per sample",
    "rows of a repeated id cannot be paired",
    "several arrays could be the features",
    "several vectors per instance",
    "side column cannot be read as text",
    "side column twice",
    "side table names none of the instances",
    "side table without ids",
    "some files have ids and some have none",
    "split column holds other values",
    "store is damaged",
    "too few modalities",
    "unknown kind of file",
    "unknown modality to exclude",
    "value too long",
    "vectors cannot be put into the file",
}
# Rows of a list of exclusions, held by tests/data/test_exclusion.py; of ids, by tests/files/test_id_patterns.py.
ROWS_OF_LISTS = {"unknown modality to exclude", "id that the pattern does not fit"}
# Said of what pmrl writes and reads back, not of the user's data; held where it is written.
OURS = {
    "id cannot be stored in HDF5",
    "manifest cannot be read",
    "no export with codes or channels",
    "not a diagnosis",
    "not a model",
    "not a state",
    "unreadable tensors",
}


@pytest.mark.parametrize(("what", "spoil", "kind", "named"), CASES)
def test_faults_of_rows_name_file_row_and_id_of_five_and_count_all(tmp_path, what, spoil, kind, named):
    path = write(tmp_path, kind, *spoil(features(), NAMES))
    with pytest.raises(DataError) as caught:
        read_dataset([str(path), good(tmp_path)])
    error = caught.value
    assert (error.what, error.total) == (what, len(BAD))
    assert (error.at.file, error.at.row, error.at.instance_id) == (str(path), BAD[0], named)
    assert [place.row for place in error.others] == BAD[1:5]
    assert all(place.file == str(path) and place.dataset for place in error.others if kind != "npz")
    assert f"row {BAD[0]}" in str(error)
    assert "(6 in all.)" in str(error)
    if named is not None:
        assert f"(id {named!r})" in str(error) or f"(id '{named[:79]}…')" in str(error)


def test_every_fault_that_the_readers_know_is_classified():
    """A new fault must say whether a row is at fault; if so, the test above must make it."""
    found = set()
    for room in ("files", "data"):
        for path in (ROOT / "pmrl_cli" / room).rglob("*.py"):
            for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not isinstance(call, ast.Call) or ast.unparse(call.func) not in ("DataError", "_id_error"):
                    continue
                given = [*call.args[:1], *(word.value for word in call.keywords if word.arg == "what")]
                found |= {one.value for one in given if isinstance(one, ast.Constant)}
    assert found - WHOLE_FAULTS - ROWS_OF_LISTS - OURS <= set(ROW_FAULTS)


def test_faults_of_all_files_are_reported_at_once(tmp_path):
    bad = {name: features() for name in ("x", "y")}
    paths = []
    for name, array in bad.items():
        array[7] = np.nan
        array[7, 0] = 1
        np.savez(tmp_path / f"{name}.npz", features=array, ids=np.array(NAMES))
        paths.append(tmp_path / f"{name}.npz")
    twice = write(tmp_path, "parquet", *ids_become(lambda row: "i0")(features(), NAMES))
    ran = pmrl("ingest", *paths, "-o", tmp_path / "store")
    assert ran.returncode == 3
    assert [line.split(": ")[2].split(" ")[0] for line in ran.stderr.splitlines()] == [
        f"{path}:features" for path in paths
    ]
    ran = pmrl("ingest", twice, tmp_path / "absent.h5", "-o", tmp_path / "store")
    assert "duplicate id" in ran.stderr
    assert "absent.h5" in ran.stderr
    assert not (tmp_path / "store").exists()


HOSTILE = "\x1b[2Jforged\nerror: \u202eline\x00"


def test_names_in_files_cannot_write_to_the_terminal(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for group in ("\x1b[2Ja", "\u202eb"):
            file[f"{group}/features"] = features()
            file[f"{group}/ids"] = NAMES
    ids = [*NAMES[:-1], HOSTILE]
    duplicates = write(tmp_path, "parquet", features(), [*ids[:-2], HOSTILE, HOSTILE])
    (tmp_path / "\x1b[2J.npz").symlink_to(good(tmp_path))
    for files in ([tmp_path / "x.h5"], [duplicates, good(tmp_path)], [tmp_path, "--json"]):
        ran = pmrl("inspect", *files)
        assert ran.returncode == 3
        shown = ran.stderr + ("" if "--json" in files else ran.stdout)
        assert all(line.isprintable() for line in shown.splitlines())
        assert "Traceback" not in shown
        if "--json" in files:
            json.loads(ran.stdout)


def test_a_file_name_that_is_not_utf8_is_reported(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.h5")
    ran = pmrl("inspect", path, good(tmp_path), "--json")
    assert ran.returncode == 3
    assert "\\udcff.h5" in ran.stderr
    assert json.loads(ran.stdout)["problems"][0]["file"] == path


def test_a_place_cuts_what_is_long():
    text = str(Place("f", "d" * 10_000, 1, "i" * 10_000))
    assert len(text) < 250


def pickled(path):
    path.write_bytes(pickle.dumps({"features": [1]}))


def archived(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps([1]))


@pytest.mark.parametrize("name", ["x.pt", "x.pkl", "x.h5", "x.npy", "x.npz", "x.parquet", "x.data"])
@pytest.mark.parametrize("make", [pickled, archived])
def test_pickles_are_refused_under_any_name(tmp_path, make, name):
    make(tmp_path / name)
    with pytest.raises(PolicyError, match="a pickle"):
        probe(tmp_path / name)


def test_ids_that_only_look_alike_are_not_joined_but_noted(tmp_path):
    x = [*NAMES, "caf\u00e9"]
    y = [*NAMES, "cafe\u0301"]
    for name, ids in (("x", x), ("y", y)):
        np.savez(tmp_path / f"{name}.npz", features=np.ones((len(ids), 3), np.float32), ids=np.array(ids))
    data = read_dataset([str(tmp_path / "x.npz"), str(tmp_path / "y.npz")])
    assert data.ids.to_pylist() == NAMES
    assert any("differ only by Unicode normalisation" in note for note in data.notes)


def test_an_interrupt_at_any_moment_shows_no_trace(tmp_path):
    """NumPy swallowed it while it was imported, and the command went on with half of NumPy."""
    code = (
        "import signal, sys; from pmrl_cli import __main__ as start\n"
        "signal.signal(signal.SIGINT, signal.SIG_DFL); print(flush=True)\n"  # before this Python itself starts
        "sys.argv[0] = 'pmrl'; start.main()"
    )
    command = [sys.executable, "-c", code, "inspect", good(tmp_path), good(tmp_path, "other.npz")]
    for delay in np.linspace(0, 0.7, 8):
        ran = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        ran.stdout.readline()
        time.sleep(delay)
        ran.send_signal(signal.SIGINT)
        _, shown = ran.communicate(timeout=HUNG)
        assert ran.returncode in (0, 130, -signal.SIGINT), shown
        assert "Traceback" not in shown
        assert "internal error" not in shown
