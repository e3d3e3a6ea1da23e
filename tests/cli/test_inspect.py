"""``pmrl inspect``: everything found and everything wrong, in one run."""

import json
from itertools import pairwise

import h5py
import numpy as np
import pytest

from tests import typed


@pytest.fixture
def files(tmp_path):
    for name, dim in (("image", 3), ("text", 2)):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["features"] = np.arange(1, 4 * dim + 1, dtype=np.float32).reshape(4, dim)
            file["ids"] = ["a", "b", "c", f"only in {name}"]
    return tmp_path


def run(*arguments, stdin=None, **environment):
    return typed.pmrl("inspect", *arguments, stdin=stdin or "", env=environment)


def test_the_table_fits_eighty_columns_and_shows_the_overlap(files):
    done = run(files)
    assert done.returncode == 0
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "\x1b" not in done.stdout
    assert "outer join: 3 instances" in done.stdout
    assert [line.split() for line in done.stdout.splitlines() if line.startswith("image")] == [
        ["image", "1", "4", "3", "float32", "/ids", "0", "0", "4"],
        ["image", "4", "3", "3", "1"],
    ]


def test_missing_rows_overlap_with_nothing(files):
    with h5py.File(files / "text.h5", "r+") as file:
        file["features"][0] = np.nan
    done = run("--json", files)
    image, text = json.loads(done.stdout)["modalities"]
    assert [text[name] for name in ("rows", "missing", "joined", "shared", "alone")] == [4, 1, 2, 2, 1]
    assert [image[name] for name in ("rows", "missing", "joined", "shared", "alone")] == [4, 0, 2, 2, 2]


def test_all_problems_of_all_files_at_once(files):
    (files / "broken.h5").write_bytes(b"no")
    with h5py.File(files / "audio.h5", "w") as file:
        values = np.ones((3, 4), np.float32)
        values[1, 2] = np.nan
        file["features"] = values
        file["ids"] = ["a", "b", "c"]
    with h5py.File(files / "linked.h5", "w") as file:
        file["features"] = h5py.ExternalLink("image.h5", "/features")
    done = run("--json", files)
    assert done.returncode == 4, "the most severe"
    report = json.loads(done.stdout)
    assert report["schema"] == "pmrl.inspect/1"
    assert [(problem["error"], problem["message"].split(":")[0]) for problem in report["problems"]] == [
        (3, "file cannot be read"),
        (4, "refused"),
        (3, "non-finite value"),
    ]
    assert (report["problems"][2]["row"], report["problems"][2]["id"]) == (1, "b")
    assert done.stderr.count("error: ") == 3
    assert [entry["bad"] for entry in report["modalities"]] == [1, 0, 0]
    assert report["instances"] == 3


def test_copies_and_vectors_that_stand_in_for_others_are_counted(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(120, 8)).astype(np.float32)
    text = np.random.default_rng(1).normal(size=(600, 8)).astype(np.float16)
    text[200:300] = 0.5
    np.save(tmp_path / "images.npy", np.repeat(vectors, 5, axis=0))
    np.save(tmp_path / "text.npy", text)
    entries = json.loads(run("--json", tmp_path).stdout)["modalities"]
    assert [(entry["rows"], entry["different"]) for entry in entries] == [(600, 120), (600, 501)]
    assert [entry["templates"] for entry in entries] == [[], [{"rows": 100, "first_row": 200}]]
    shown = run(tmp_path).stdout.splitlines()
    assert shown[-1] == "text: 100 rows hold one vector, the first is row 200"
    assert next(line for line in shown if line.startswith("images")).split()[-1] == "120"


def test_bad_rows_that_would_be_dropped_are_no_problem(files):
    with h5py.File(files / "zero.h5", "w") as file:
        file["features"] = np.zeros((3, 4), np.float32)
        file["ids"] = ["a", "b", "c"]
    assert run(files).returncode == 3
    assert run("--on-bad", "drop", files).returncode == 0


def test_paths_from_standard_input(files):
    paths = [str(files / "image.h5"), str(files / "text.h5")]
    assert run("-", stdin="\n".join(paths)).returncode == 0
    assert run("-", "-0", stdin="\0".join(paths)).stdout == run(*paths).stdout


@pytest.mark.parametrize("command", ["inspect", "fit", "export"])
def test_help_breaks_lines_only_where_the_screen_ends(command):
    # the breaks of the docstring once stood in the help, leaving single words on lines
    done = typed.pmrl(command, "--help", env={"COLUMNS": "80"})
    intro = [line.strip() for line in done.stdout.split("╭")[0].splitlines()]
    for line, following in pairwise(intro):
        if line and following:
            assert len(line) + 1 + len(following.split()[0]) > 78
