"""Partial states and their merge as typed, and what a diagnosis refuses before it prints."""

import json
import os
import re
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest

from pmrl_cli.cli.main import command_line
from pmrl_cli.cli.states import read
from pmrl_cli.errors import DataError, StateError, UsageError
from tests import typed
from tests.states import assert_same_state


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """240 instances of three modalities in ``all``, and the same in ``1`` and ``2``."""
    folder = tmp_path_factory.mktemp("shards")
    generator = np.random.default_rng(0)
    latent = generator.normal(size=(240, 12))
    for name in "abc":
        vectors = (latent + 0.8 * generator.normal(size=latent.shape)).astype(np.float32)
        for shard, rows in {"all": slice(0, 240), "1": slice(0, 100), "2": slice(100, 240)}.items():
            (folder / shard).mkdir(exist_ok=True)
            with h5py.File(folder / shard / f"{name}.h5", "w") as file:
                file["features"] = vectors[rows]
                file["id"] = [f"i{i}".encode() for i in range(240)[rows]]
    return folder


@pytest.fixture
def states(folder, run, tmp_path):
    paths = []
    for shard in ("1", "2"):
        paths.append(tmp_path / f"{shard}.state")
        assert run("diagnose", folder / shard, "--partial", paths[-1], "-q") == (0, f"{paths[-1]}\n", "")
    return paths


def numbers(node, path=""):
    if isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from numbers(value, f"{path}.{key}")
    else:
        yield path, node


def assert_one_diagnosis(merged, whole):
    """All numbers agree to rounding, but those of the order of rows: a merge sees no files."""
    for result in (merged, whole):
        del result["digest"]
        for name in ("scope", "model", "command", "leaks"):
            result["inputs"].pop(name, None)
        for modality in result["modality"].values():
            modality.pop("row_order", None)
            modality.pop("runs", None)
        if (verdict := result.pop("verdict", None)) is not None:
            result["codes"] = [finding["code"] for finding in verdict["findings"]]
    merged, whole = dict(numbers(merged)), dict(numbers(whole))
    assert merged.keys() == whole.keys()
    for path, value in whole.items():
        expected = pytest.approx(value, rel=1e-10, abs=1e-10) if isinstance(value, float) else value
        assert merged[path] == expected, path


NEEDS_ROWS = (
    "note: runs of mispaired rows, shifted joins and leaks need the rows: pmrl diagnose FILES looks for them.\n"
)


def test_merged_states_say_what_one_pass_says(folder, run, states, tmp_path):
    whole = json.loads(run("diagnose", folder / "all", "--json", "-q")[1])
    code, out, err = run("merge", *states, "--json", "--fail-on", "fail")
    assert (code, err) == (0, NEEDS_ROWS)
    merged = json.loads(out)
    assert merged["inputs"].pop("scope") == "240 instances of 2 states"
    assert whole["inputs"].pop("scope") == "all 240 instances, compared as they are"
    assert_one_diagnosis(merged, whole)

    again = tmp_path / "merged.state"
    assert run("merge", *states[::-1], "-o", again)[1] == f"{again}\n"
    assert_same_state(state_of(run, tmp_path, folder / "all"), read(again))


def test_what_does_not_fit_together_is_refused(folder, run, states, tmp_path):
    with pytest.raises(StateError, match=r"states overlap: .*1.state \(id 'i\d+'\)"):
        run("merge", *states, states[0])
    other = tmp_path / "other.state"
    run("diagnose", folder / "2", "--partial", other, "--seed", 1, "-q")
    with pytest.raises(StateError, match="states do not fit together: .*other.state: seed 1, expected 0"):
        run("merge", states[0], other)
    with pytest.raises(DataError, match="not a state: .*a.h5"):
        run("merge", states[0], folder / "1" / "a.h5")
    with pytest.raises(UsageError, match="output is an input"):
        run("merge", *states, "-o", states[0])
    with pytest.raises(UsageError, match="output exists: .*a file that pmrl did not write"):
        run("diagnose", folder / "1", "--partial", folder / "1" / "a.h5", "-q")
    with pytest.raises(UsageError, match="a state beside what needs a diagnosis: --fail-under, expected none"):
        run("merge", *states, "-o", tmp_path / "new.state", "--fail-under", "A=0")
    assert not (tmp_path / "new.state").exists()


def test_a_gate_on_the_verdict_or_an_unknown_key_is_known_before_anything_is_printed(run, states, capsys):
    code, out, err = run("merge", states[0], "--fail-on", "warn")  # few instances
    assert code == 1
    assert "100 instances of 1 state" in out
    assert "N_SMALL [warn]" in out
    assert err == f"{NEEDS_ROWS}not met: the verdict is N_SMALL [warn]\n"
    with pytest.raises(UsageError, match="unknown key of --fail-under: 'B'"):
        run("merge", *states, "--fail-under", "B=1")
    assert capsys.readouterr().out == ""


def test_a_state_of_another_shape_under_its_digest_is_refused(run, states, tmp_path):
    from pmrl_cli.files.artifacts.states import read_state, write_state

    header, arrays = read_state(states[0])
    for name in ("counts", "summaries.bins", "reservoir.vectors.1", "reservoir.id_ends"):
        broken = tmp_path / f"{name}.state"
        write_state(broken, header, {**arrays, name: arrays[name][:1]})
        shown = name.partition(".")[2] or name
        with pytest.raises(DataError, match=rf"not a state: .*{name}.state: array '{shown}' is"):
            run("merge", broken)
    write_state(tmp_path / "header.state", {**header, "more": 1}, arrays)
    with pytest.raises(DataError, match="not a state: .*header.state"):
        run("merge", tmp_path / "header.state")


@pytest.fixture(scope="module")
def gappy(tmp_path_factory):
    """A store and the files of 61 instances of three modalities, a third of whose vectors are missing."""
    folder = tmp_path_factory.mktemp("gappy")
    generator = np.random.default_rng(1)
    latent = generator.normal(size=(61, 4))
    (folder / "files").mkdir()
    for name in "abc":
        there = np.flatnonzero(generator.random(61) > 1 / 3)
        with h5py.File(folder / "files" / f"{name}.h5", "w") as file:
            file["features"] = (latent + 0.3 * generator.normal(size=latent.shape)).astype(np.float32)[there]
            file["id"] = [f"i{i}".encode() for i in there]
    command_line(["ingest", str(folder / "files"), "-o", str(folder / "store"), "-q"], standalone_mode=False)
    return folder


def state_of(run, folder, *arguments):
    path = folder / "whole.state"
    run("diagnose", *arguments, "--partial", path, "-q")
    return read(path)


def shards_of(run, folder, count, *arguments):
    paths = [folder / f"{number}-of-{count}.state" for number in range(1, count + 1)]
    for number, path in enumerate(paths, 1):
        run("diagnose", *arguments, "--shard", f"{number}/{count}", "--partial", path, "-q")
    return paths


def merged(run, folder, paths):
    path = folder / "merged.state"
    run("merge", *paths, "-o", path)
    return read(path)


@pytest.mark.parametrize(("source", "count"), [("files", 4), ("store", 7)])
def test_shards_of_one_data_set_merge_to_its_state(gappy, run, tmp_path, source, count):
    whole = state_of(run, tmp_path, gappy / source)
    assert_same_state(whole, merged(run, tmp_path, shards_of(run, tmp_path, count, gappy / source)))


def test_shards_of_what_a_model_never_saw_merge_to_its_diagnosis(folder, run, tmp_path):
    model = tmp_path / "model"
    settings = ["--adapter", "linear", "--dim", 4, "--steps", 0, "--no-refit", "--test", 0.4]
    run("fit", folder / "all", "-o", model, "-q", *settings)
    evaluated = [folder / "all", "--model", model, "--split", "test"]
    whole = json.loads(run("diagnose", *evaluated, "--json", "-q")[1])
    assert whole["inputs"]["instances"] < 240
    assert whole.pop("training") is not None  # of the model folder, which a merge does not see
    merged = json.loads(run("merge", *shards_of(run, tmp_path, 3, *evaluated), "--json")[1])
    assert merged.pop("training") is None
    for result in (whole, merged):  # nor its share of the gradient, and what is said of them
        for modality in result["modality"].values():
            modality.pop("gradient_share", None)
        result.pop("verdict")
    assert_one_diagnosis(merged, whole)


def test_the_recipe_of_the_documentation_makes_the_state_of_one_pass(gappy, run, tmp_path):
    root = Path(__file__).parents[2]
    line = re.compile(r"^    (seq 8 \| xargs .*--shard \{\}/8 --partial \{\}\.state)", re.MULTILINE)
    recipes = [
        line.search((root / name).read_text(encoding="utf-8")).group(1) for name in ("docs/states.md", "README.md")
    ]
    assert recipes[0].replace("store", "STORE") == recipes[1]
    typed.put_command(tmp_path)
    (tmp_path / "store").symlink_to(gappy / "store")
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(root)}
    subprocess.run(["sh", "-ec", recipes[0].replace("8", "2")], cwd=tmp_path, env=environment, check=True)
    states = sorted(tmp_path.glob("*.state"))
    assert len(states) == 2
    assert_same_state(merged(run, tmp_path, states), state_of(run, tmp_path, gappy / "store"))


def test_a_shard_without_partial_is_refused_with_what_to_type(gappy, run, tmp_path):
    with pytest.raises(UsageError, match="--shard without --partial") as caught:
        run("diagnose", gappy / "store", "--shard", "2/8")
    assert "--partial 2.state" in str(caught.value)
    with pytest.raises(UsageError, match="--fail-under"):
        run("diagnose", gappy / "store", "--shard", "2/8", "--partial", tmp_path / "x", "--fail-under", "A=0")
    empty = tmp_path / "empty.state"
    run("diagnose", gappy / "store", "--shard", "1/70", "--partial", empty, "-q")
    with pytest.raises(DataError, match="no instance in these states.*Merge the states of all shards"):
        run("merge", empty)
    again = tmp_path / "again.state"
    run("merge", empty, "-o", again)  # an empty state is a state
    assert again.exists()


def test_shards_that_are_missing_are_named_and_one_that_comes_twice_is_refused(gappy, run, tmp_path):
    one, _, three = shards_of(run, tmp_path, 3, gappy / "store")
    assert "note: these are not all shards: 2/3 missing." in run("merge", one, three, "-o", tmp_path / "two.state")[2]
    assert run("merge", one, three, "-o", tmp_path / "two.state", "-q") == (0, f"{tmp_path / 'two.state'}\n", "")
    with pytest.raises(StateError, match="shard 3/3 a second time"):
        run("merge", one, three, three)
    other = tmp_path / "half.state"
    run("diagnose", gappy / "store", "--shard", "1/2", "--partial", other, "-q")
    with pytest.raises(StateError, match="shards 2, expected 3 as in the first"):
        run("merge", one, other)
