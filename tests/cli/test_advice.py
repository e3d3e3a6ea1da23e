"""Every command that a finding ends in is one that runs: on files that give the finding, as it is printed."""

import json
import shlex

import numpy as np
import pytest

from pmrl_cli.cli.main import app
from pmrl_cli.diagnosis.rules import RULES
from pmrl_cli.diagnosis.rules.advice import command_for
from tests.simulate import simulate


def run(capsys, *arguments):
    code = app([str(one) for one in arguments], standalone_mode=False) or 0
    printed = capsys.readouterr()
    return code, printed.out, printed.err


CODES = [*(rule.code for rule in RULES), "HEALTHY", "WEAK", "NO_SPACE"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    data = simulate(120, 2, 12, noise=0.4)
    ids = np.array(data.ids.to_pylist())
    for features in data.modalities:
        np.savez(folder / f"{features.name}.npz", ids=ids, features=features.array)
    return folder


def inputs_of(folder, model, stage="post"):
    files = [str(folder / "m0.npz"), str(folder / "m1.npz")]
    return {"inputs": {"stage": stage, "model": model, "command": {"files": files, "options": ["--on-bad", "drop"]}}}


def test_all_commands_run_without_a_model_and_with_one(capsys, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = [folder / "m0.npz", folder / "m1.npz"]
    assert run(capsys, "fit", *files, "-o", "model", "--steps", "2", "--quiet")[0] == 0
    commands = {
        command_for(code, inputs_of(folder, model, stage))
        for code in CODES
        for model, stage in ((None, "post"), (None, "pre"), ("model", "post"))
    }
    assert len(commands) >= 6
    for command in sorted(commands):
        program, *arguments = shlex.split(command)
        assert program == "pmrl"
        if arguments[0] == "fit":
            arguments += ["--steps", "2", "--force"]
        code, _, err = run(capsys, *arguments)
        assert code == 0, (command, err)


def test_a_command_holds_the_files_and_options_that_were_given(capsys, folder):
    _, out, _ = run(capsys, "diagnose", folder / "m0.npz", folder / "m1.npz", "--on-bad", "drop", "--json")
    (finding, *_) = json.loads(out)["verdict"]["findings"]
    assert str(folder / "m0.npz") in shlex.split(finding["command"])
    assert "--on-bad drop" in finding["command"]


def test_after_a_fit_nothing_tells_to_fit_what_is_fitted(folder):
    assert command_for("WEAK", inputs_of(folder, "runs/a")) == "pmrl diagnose runs/a"
    assert command_for("WEAK", inputs_of(folder, None)).startswith("pmrl fit ")
    # Whether it is the model or the files: the features alone.
    assert "--model" not in command_for("NO_PAIRING", inputs_of(folder, "runs/a"))
    assert command_for("MISPAIRS", inputs_of(folder, "runs/a")).endswith("--model runs/a --suspects suspects.csv")
