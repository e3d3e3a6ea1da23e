"""``pmrl fit`` as typed: what it prints, writes, refuses, and how it continues."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from pmrl_cli.files.durable.locks import held
from tests import typed
from tests.limits import HUNG
from tests.sample_data import put_features

ROOT = Path(__file__).parents[2]
QUICK = ("--adapter", "mlp", "--steps", "24", "--dropout", "0", "--threads", "1")
CLOSED = ("--steps", "0", "--adapter", "linear", "--no-refit", "--threads", "1")


def processor_seconds(number):
    """Return what a running process has used so far."""
    fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def stopped_at(line, number, *arguments, cwd):
    """Start a command, send it a signal once it has said a line, and return it and what it had used by then."""
    read_end, write_end = os.pipe()
    command = typed.Command(*arguments, cwd=cwd, stderr=write_end)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as said:
        for one in said:
            if line in one:
                break
        used = processor_seconds(command.pid)
        command.send_signal(number)
        command.rest = said.read().decode()
    command.communicate()
    return command, used


def pmrl(*arguments, code=0, **options):
    done = typed.pmrl(*arguments, **options)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


def on_a_terminal(*arguments, cwd, columns):
    """Return the exit code, standard output, and what a terminal of so many columns gets as standard error."""
    primary, secondary = pty.openpty()
    command = typed.Command(*arguments, cwd=cwd, env={"COLUMNS": str(columns), "TERM": "xterm"}, stderr=secondary)
    os.close(secondary)
    shown = b""
    with os.fdopen(primary, "rb", buffering=0) as terminal, suppress(OSError):  # how Linux says that it is closed
        while part := terminal.read(65536):
            shown += part
    return command.wait(), command.communicate()[0], shown


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "run.json"}


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """250 instances of the sample data."""
    return put_features(tmp_path_factory.mktemp("data") / "features", 250)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory, features):
    folder = tmp_path_factory.mktemp("fit")
    out, err = pmrl("fit", *features, *QUICK, "-o", "runs/a", "--log", "logs/a.jsonl", cwd=folder)
    return folder, out, err


def test_the_log_has_each_line_of_the_history_as_json(fitted):
    folder = fitted[0]
    lines = [json.loads(line) for line in (folder / "logs/a.jsonl").read_text().splitlines()]
    history = [line.split(",") for line in (folder / "runs/a/history.csv").read_text().splitlines()[1:]]
    logged = {(line["candidate"], str(line["step"])): line for line in lines}
    assert {(stage, step) for stage, step, *_ in history} <= set(logged)
    for stage, step, _, _, _, mrr, *_ in history:
        found = logged[stage, step].get("mrr")
        assert found is None if mrr in ("", "nan") else found == pytest.approx(float(mrr))
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", line["time"]) for line in lines)


def test_the_split_file_has_the_part_of_each_instance(fitted):
    import csv

    model = fitted[0] / "runs/a"
    with (model / "split.csv").open(encoding="utf-8", newline="") as file:
        parts = {row["id"]: row["part"] for row in csv.DictReader(file)}
    metrics = json.loads((model / "metrics.json").read_text())
    for part in ("train", "validation", "test"):
        assert list(parts.values()).count(part) == metrics[f"instances.{part}"]


def test_standard_output_is_the_path_and_nothing_else(fitted):
    folder, out, err = fitted
    assert out == "runs/a\n"
    assert "left 32d" in err
    assert "held-out MRR" in err
    assert not (folder / "runs/a.unfinished").exists()


def test_the_model_folder_is_whole_and_its_figures_agree(fitted):
    model = fitted[0] / "runs/a"
    names = {path.name for path in model.iterdir()}
    assert names == {
        "model.safetensors", "seen.safetensors", "config.json", "resolved.toml", "metrics.json", "history.csv",
        "split.csv", "README.md", "manifest.json", "run.json",
    }  # fmt: skip
    metrics = json.loads((model / "metrics.json").read_text())
    assert metrics["held_out.mrr"] >= metrics["start.mrr"]
    assert f"{metrics['held_out.mrr']:.3f}" in (model / "README.md").read_text()
    head, *lines = (model / "history.csv").read_text().splitlines()
    assert head.startswith("stage,step,epoch,loss,share,mrr,r1")
    # Members stand side by side where they rank better than the best of them alone, whose figures are the history's.
    assert metrics["held_out.mrr"] > max(float(line.split(",")[5] or 0) for line in lines) - 1e-6


def test_resolved_settings_refit_byte_for_byte(fitted, features):
    folder = fitted[0]
    pmrl("fit", *features, "--config", "runs/a/resolved.toml", "--threads", "1", "-o", "runs/b", cwd=folder)
    assert contents(folder / "runs/a") == contents(folder / "runs/b")


def test_hash_seed_locale_and_time_zone_change_no_byte(fitted, tmp_path, features):
    odd = {"PYTHONHASHSEED": "7", "LC_ALL": "C", "TZ": "Asia/Kathmandu", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pmrl_cli", "fit", *features, *QUICK, "-q", "-o", "m"]
    subprocess.run(command, cwd=tmp_path, env=os.environ | odd, check=True, capture_output=True, timeout=HUNG)
    assert contents(fitted[0] / "runs/a") == contents(tmp_path / "m")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_saves_its_state_and_the_same_command_continues(fitted, tmp_path, number, features):
    arguments = ("fit", *features, *QUICK, "-o", "m", "-v")
    command, used = stopped_at(b"step 15 ", number, *arguments, cwd=tmp_path)
    if command.returncode == 0:
        pytest.skip("it was done before the signal arrived")
    assert command.returncode == 128 + number
    assert command.seconds - used < 5
    assert (tmp_path / "m.unfinished").is_dir()
    assert not (tmp_path / "m").exists()
    pmrl(*arguments, cwd=tmp_path)
    assert contents(fitted[0] / "runs/a") == contents(tmp_path / "m")
    assert not (tmp_path / "m.unfinished").exists()


def test_interrupted_before_anything_was_saved_it_says_so(tmp_path, features):
    command, _ = stopped_at(b" instances: ", signal.SIGINT, "fit", *features, *QUICK, "-o", "m", cwd=tmp_path)
    assert command.returncode == 130
    assert command.rest.splitlines()[-1] == "interrupted: nothing was saved yet"
    assert not (tmp_path / "m").exists()


def test_an_unfinished_run_of_other_settings_is_refused_until_restart(tmp_path, features):
    command, _ = stopped_at(b"step 0 ", signal.SIGINT, "fit", *features, *QUICK, "-o", "m", "-v", cwd=tmp_path)
    assert command.returncode == 130
    other = ("fit", *features, *QUICK, "--seed", "1", "-o", "m")
    _, err = pmrl(*other, cwd=tmp_path, code=7)
    assert "setting seed" in err
    assert "--restart" in err
    pmrl("fit", *features, *CLOSED, "-o", "m", "--restart", cwd=tmp_path)


def test_a_flag_wins_over_the_environment_which_wins_over_the_config(tmp_path, features):
    (tmp_path / "c.toml").write_text('dim = 8\nseed = 5\nvalidation = 0.3\nsteps = 0\nadapter = "linear"\n')
    options = ("--config", "c.toml", "--dim", "4", "-o", "m", "-q")
    _, err = pmrl("fit", *features, *options, cwd=tmp_path, env={"PMRL_FIT_DIM": "6", "PMRL_FIT_SEED": "9"})
    assert err == ""
    settings = json.loads((tmp_path / "m/config.json").read_text())["settings"]
    assert (settings["dim"], settings["seed"], settings["validation"]) == (4, 9, 0.3)


def test_json_is_one_object_with_the_metrics(tmp_path, features):
    out, _ = pmrl("fit", *features, *CLOSED, "--json", "-o", "m", cwd=tmp_path)
    summary = json.loads(out)
    assert summary["schema"] == "pmrl.fit/1"
    assert summary["model"] == "m"
    assert 0 < summary["held_out.mrr"] <= 1


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--objective", "infinity"), 2, "unknown objective: 'infinity', expected one of anchor, "),
        (("--set", "tau=1"), 2, "unknown setting of the objective: tau"),
        (("--set", "tau"), 2, "--set is not NAME=VALUE"),
        (
            ("--objective", "gram", "--set", "anchor=3"),
            2,
            "no such anchor: anchor=3 with 3 modalities, expected 0 to 2",
        ),
        (("--adapter", "tree"), 2, "expected one of auto, linear, mlp, kernel"),
        (("--validation", "1.5"), 2, "validation fraction out of range"),
        (("--config", "absent.toml"), 2, "config file cannot be read: absent.toml"),
        (("--group", "owner"), 2, "no such side column: 'owner'"),
        (("--device", "cuda:77"), 5, "device is not there"),
        (("--device", "cpu:"), 2, "unknown device: 'cpu:'"),
        (("--seed", "4294967296"), 2, "seed out of range"),
        (
            ("--set", "temperature_instance=0"),
            2,
            "setting of the objective is out of range: temperature_instance=0.0, expected 0.015 to 1",
        ),
        (("--steps", "1", "--learning-rate", "1e30", "--dropout", "0", "--adapter", "mlp"), 6, "training diverged"),
        (("--device", "abacus"), 2, "unknown device: 'abacus'"),
        (("--max-memory", "lots"), 2, "is not a size such as 512M or 8G"),
    ],
)
def test_a_wrong_option_is_one_line_and_its_exit_code(tmp_path, options, code, words, features):
    out, err = pmrl("fit", *features, *options, "-o", "m", cwd=tmp_path, code=code)
    assert out == ""
    assert err.splitlines()[-1].startswith("error: ")
    assert words in err
    assert not (tmp_path / "m").exists()


def test_two_fits_of_one_output_exclude_each_other(tmp_path, features):
    with held(tmp_path / "m.unfinished"):
        _, err = pmrl("fit", *features, *QUICK, "-o", "m", cwd=tmp_path, code=7)
    assert f"a lock held by process {os.getpid()}" in err
    pmrl("fit", *features, *CLOSED, "-o", "m", cwd=tmp_path)  # a lock that no process holds is free
    (tmp_path / "n.unfinished").mkdir()
    (tmp_path / "n.unfinished/thesis.txt").write_text("mine")
    _, err = pmrl("fit", *features, "--restart", "-o", "n", cwd=tmp_path, code=2)
    assert "files that pmrl did not write" in err


def test_other_outputs_links_and_the_folder_one_stands_in_are_not_replaced(tmp_path, features):
    pmrl("ingest", *features, "-o", "store", cwd=tmp_path)
    (tmp_path / "link").symlink_to("store")
    for output, words in (("store", "a pmrl.store"), ("link", "a symbolic link"), (".", "no name of its own")):
        _, err = pmrl("fit", *features, *CLOSED, "-o", output, cwd=tmp_path, code=2)
        assert words in err
    assert (tmp_path / "store/left.npy").exists()


def test_an_unknown_config_key_names_those_there_are(tmp_path, features):
    (tmp_path / "c.toml").write_text("sede = 1\n")
    _, err = pmrl("fit", *features, "--config", "c.toml", cwd=tmp_path, code=2)
    assert "unknown config key: c.toml: 'sede', expected one of" in err
    assert "seed" in err


def test_what_pmrl_did_not_write_is_replaced_only_by_force(tmp_path, features):
    (tmp_path / "m").mkdir()
    (tmp_path / "m/thesis.txt").write_text("mine")
    _, err = pmrl("fit", *features, *CLOSED, "-o", "m", cwd=tmp_path, code=2)
    assert "--force" in err
    assert (tmp_path / "m/thesis.txt").read_text() == "mine"
    pmrl("fit", *features, *CLOSED, "-o", "m", "--force", cwd=tmp_path)
    pmrl("fit", *features, *CLOSED, "-o", "m", "--seed", "1", cwd=tmp_path)  # now it is pmrl's own
    assert json.loads((tmp_path / "m/config.json").read_text())["settings"]["seed"] == 1


def test_a_terminal_gets_a_live_line_and_a_pipe_gets_none(fitted, tmp_path, features):
    code, out, shown = on_a_terminal("fit", *features, *QUICK, "-o", "m", cwd=tmp_path, columns=80)
    assert (code, out) == (0, "m\n")
    text = shown.decode()
    assert re.search(r"candidate \d of \d: .*held-out MRR 0\.\d+", text)
    assert "/24" in text
    assert "left" in text
    assert "\x1b[" not in fitted[2]


def test_the_pipeline_works_as_typed(tmp_path, features):
    (tmp_path / "features").symlink_to(Path(features[0]).parent)
    typed.put_command(tmp_path)
    script = """
        set -e
        S=$(pmrl ingest features/* -o store)
        M=$(echo "$S" | pmrl fit - --steps 0 --adapter linear -q -o model)
        pmrl export "$S" --model "$M" -o - | python -c '
import sys, pyarrow as pa
table = pa.ipc.open_stream(sys.stdin.buffer).read_all()
print(table.num_rows, *table.column_names)
'
    """
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, env=environment, capture_output=True, timeout=HUNG)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode() == "247 id left right spectrum fused\n"


@pytest.mark.parametrize("columns", [50, 120])
def test_a_fit_on_a_terminal_of_any_width_ends_well(tmp_path, columns, features):
    # the steps of a task not yet begun have no total: 60 columns and more once ended in an internal error
    few = ("--steps", "4", "--adapter", "mlp", "--no-refit", "--threads", "1")
    code, out, shown = on_a_terminal("fit", *features, *few, "-o", "runs/a", cwd=tmp_path, columns=columns)
    assert (code, out) == (0, "runs/a\n")
    assert b"error" not in shown
    assert b"held-out MRR" in shown


def test_a_store_is_not_replaced_by_the_model_fitted_on_it(tmp_path, features):
    pmrl("ingest", *features, "-o", "runs/store", cwd=tmp_path)
    before = contents(tmp_path / "runs/store")
    _, err = pmrl("fit", "runs/store", *QUICK, "-o", "runs/store", cwd=tmp_path, code=2)
    assert "output exists: runs/store: a pmrl.store, expected a new path or an earlier pmrl.model." in err
    _, err = pmrl("fit", "runs/store", *QUICK, "-o", "runs/store", "--force", cwd=tmp_path, code=2)
    assert "output is an input: runs/store: the same path" in err
    assert contents(tmp_path / "runs/store") == before


def test_a_mistyped_option_says_where_to_look(tmp_path, features):
    _, err = pmrl("fit", *features, "--max-memory", "much", cwd=tmp_path, code=2)
    assert "--max-memory" in err
    _, err = pmrl("fit", *features, "--nope", cwd=tmp_path, code=2)
    assert err.rstrip().endswith("fit --help.")
