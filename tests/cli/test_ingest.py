"""``pmrl ingest``: the path on standard output, the rest on standard error, exit codes as promised."""

import json

import h5py
import numpy as np
import pytest

from pmrl_cli.files.formats.store import open_store
from tests import typed


@pytest.fixture
def files(tmp_path):
    for name, dim in (("image", 3), ("text", 2)):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["features"] = np.arange(1, 4 * dim + 1, dtype=np.float32).reshape(4, dim)
            file["ids"] = ["a", "b", "c", f"only in {name}"]
    (tmp_path / "groups.csv").write_text("score,group\n0.5,1\n0.25,2\n")
    return tmp_path


def run(*arguments):
    return typed.pmrl("ingest", *arguments)


def test_prints_the_path_and_the_overlap_separately(files):
    done = run(files / "image.h5", files / "text.h5", "-o", files / "store")
    assert (done.returncode, done.stdout) == (0, f"{files / 'store'}\n")
    assert "note: outer join by id: 3 instances of image 4, text 4 rows." in done.stderr
    assert open_store(files / "store").ids.to_pylist() == ["a", "b", "c"]


def test_json_is_the_manifest(files):
    done = run(files / "image.h5", files / "text.h5", "-o", files / "store", "--json", "-q")
    assert done.stderr == ""
    summary = json.loads(done.stdout)
    manifest = json.loads((files / "store" / "manifest.json").read_text())
    manifest.pop("seal")
    assert summary == {"schema": "pmrl.ingest/1", "store": str(files / "store"), **manifest}


def test_labels_and_outer_join(files):
    (files / "groups.csv").write_text("id,group\na,1\nonly in text,2\n")
    arguments = [files / "image.h5", files / "text.h5", "--labels", files / "groups.csv", "-o", files / "store"]
    assert run(*arguments).returncode == 0
    assert open_store(files / "store").columns["group"].to_pylist() == [1, None, None]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["image.h5", "-o", "store"], 3, "too few modalities"),
        (["image.h5", "absent.h5", "-o", "store"], 3, "absent.h5: No such file or directory"),
        (["image.h5", "text.h5"], 2, "Missing option"),
        (["image.h5", "text.h5", "-o", "store", "--labels", "groups.csv"], 3, "side table without ids"),
        (["image.h5", "text.h5", "-o", "image.h5"], 2, "output exists"),
        (["image.h5", "linked.h5", "-o", "store"], 4, "an external link to another file"),
    ],
)
def test_exit_codes(files, arguments, code, message):
    with h5py.File(files / "linked.h5", "w") as file:
        file["features"] = h5py.ExternalLink("image.h5", "/features")
    done = run(*(argument if argument.startswith("-") else files / argument for argument in arguments))
    assert done.returncode == code
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (files / "store").exists()
