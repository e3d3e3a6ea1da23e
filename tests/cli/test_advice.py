"""Every command that a finding ends in is one that runs: on files that give the finding, as it is printed."""

import json
import shlex

import numpy as np
import pytest

from pmrl_cli.cli.main import command_line
from pmrl_cli.diagnosis.rules import RULES
from pmrl_cli.diagnosis.rules.advice import command_for
from tests.scenarios import scenarios
from tests.simulate import dataset_of, simulate


def run(capsys, *arguments):
    code = command_line([str(one) for one in arguments], standalone_mode=False) or 0
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
    assert run(capsys, "fit", *files, "-o", "model", "--fast", "--quiet")[0] == 0
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
            arguments += ["--fast", "--force"]
        code, _, err = run(capsys, *arguments)
        assert code == 0, (command, err)


def test_a_command_holds_the_files_and_options_that_were_given(capsys, folder):
    _, out, _ = run(capsys, "diagnose", folder / "m0.npz", folder / "m1.npz", "--on-bad", "drop", "--json")
    (finding, *_) = json.loads(out)["verdict"]["findings"]
    assert str(folder / "m0.npz") in shlex.split(finding["command"])
    assert "--on-bad drop" in finding["command"]


def test_after_a_fit_no_advice_is_to_fit_again(folder):
    assert command_for("WEAK", inputs_of(folder, "runs/a")) == "pmrl diagnose runs/a"
    assert command_for("WEAK", inputs_of(folder, None)).startswith("pmrl fit ")
    # Whether it is the model or the files: the features alone.
    assert "--model" not in command_for("NO_PAIRING", inputs_of(folder, "runs/a"))
    assert command_for("MISPAIRS", inputs_of(folder, "runs/a")).endswith(
        "--model runs/a --split all --suspects suspects.csv"
    )


def test_merged_states_of_a_model_name_it():
    command = {"files": ["FILES"], "options": [], "model": "MODEL"}
    given = {"inputs": {"stage": "post", "model": None, "command": command}}
    assert command_for("MISPAIRS", given) == "pmrl diagnose FILES --model MODEL --split all --suspects suspects.csv"


def structured(kind):
    """Return a data set of what ``scenarios`` has no case of."""
    data = simulate(240, 2, 16, noise=0.4)
    arrays = {one.name: np.array(one.array) for one in data.modalities}
    if kind == "template":
        arrays["m0"][::5] = arrays["m0"][0]
    elif kind == "run of rows":
        arrays["m1"][60:160] = np.random.default_rng(0).permutation(arrays["m1"][60:160])
    elif kind == "no space":  # of other widths, with one direction of many in common: paired, hardly to be found
        generator = np.random.default_rng(0)
        arrays = {"m0": generator.normal(size=(240, 16)), "m1": generator.normal(size=(240, 12))}
        arrays["m1"][:, 0] += arrays["m0"][:, 0]
    elif kind == "one way":
        generator = np.random.default_rng(0)
        first = generator.normal(size=(600, 32))
        hubs = (np.arange(600) % 10 == 0)[:, None]
        second = np.where(hubs, 0.05, 1.0) * (first + 0.9 * generator.normal(size=(600, 32))) + 0.6 * hubs
        arrays = {"m0": first + 0.6, "m1": second}
    return dataset_of(arrays)


GOLDEN = scenarios(n=200, d=40) | {name: scenarios()[name] for name in ("offset", "hubs")}
CASES = {
    "barely aligned": {"WEAK"},
    "few instances": {"N_SMALL", "HEALTHY"},
    "one of three unrelated": {"UNRELATED_PAIR", "ODD_ONE_OUT"},
    "opposed": {"ANTI_ALIGNED", "NOT_ALIGNED_BUT_ALIGNABLE"},
    "offset": {"MODALITY_GAP", "CONE"},
    "unlike shapes": {"COV_GAP"},
    "hubs": {"HUBNESS"},
    "one point": {"COLLAPSE", "NO_PAIRING"},
    "two dimensions of many": {"DIM_COLLAPSE"},
    "three modalities, a tenth mispaired": {"MISPAIRS"},
    "off by one row": {"SHIFTED_JOIN"},
    "a quarter are copies": {"TIES"},
    "template": {"TEMPLATES"},
    "run of rows": {"MISPAIRED_ROWS"},
    "no space": {"NO_SPACE"},
    "one way": {"ONE_WAY"},
}
OF_A_MODEL = {"LEAK", "SATURATED", "STARVED", "NEG_TEMPERATURE"}
"""LEAK has a test of its own. The others come from how a fit went: tests/diagnosis/test_verdict.py makes them of
written records of training, and their command, ``pmrl diagnose MODEL``, runs in the test of all commands."""


def write(data, folder):
    for features in data.modalities:
        np.savez(folder / f"{features.name}.npz", ids=np.array(data.ids.to_pylist()), features=features.array)
    return [folder / f"{name}.npz" for name in data.names]


def follow(capsys, command):
    """Run a finding's command as printed, but that a fit is a fast one."""
    program, *arguments = shlex.split(command)
    assert program == "pmrl"
    if arguments[0] == "fit":
        arguments += ["--fast", "--force", "--quiet"]
    code, _, err = run(capsys, *arguments)
    assert code == 0, (command, err)


def test_every_code_has_a_case():
    assert set().union(*CASES.values()) | OF_A_MODEL == set(CODES)


@pytest.mark.parametrize("case", CASES)
def test_the_command_of_a_finding_runs_on_the_files_that_gave_it(capsys, case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = GOLDEN[case][0] if case in GOLDEN else structured(case)
    code, out, err = run(capsys, "diagnose", *write(data, tmp_path), "--json", "--quiet")
    assert code == 0, err
    findings = json.loads(out)["verdict"]["findings"]
    assert CASES[case] <= {one["code"] for one in findings}
    for command in sorted({one["command"] for one in findings if one["code"] in CASES[case]}):
        follow(capsys, command)


def test_the_advice_for_a_leak_runs_and_removes_it(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = simulate(120, 2, 12, noise=0.4)
    arrays = {one.name: np.array(one.array) for one in data.modalities}
    files = write(data, tmp_path)
    assert run(capsys, "fit", *files, "-o", "model", "--fast", "--quiet")[0] == 0
    write(dataset_of(arrays, ids=[f"again{i}" for i in range(120)]), tmp_path)  # the same vectors under other ids
    code, out, err = run(capsys, "diagnose", *files, "--model", "model", "--json", "--quiet")
    assert code == 0, err
    leak = next(one for one in json.loads(out)["verdict"]["findings"] if one["code"] == "LEAK")
    follow(capsys, leak["command"])
    again = shlex.split(leak["command"])[shlex.split(leak["command"]).index("-o") + 1]
    _, out, _ = run(capsys, "diagnose", *files, "--model", again, "--json", "--quiet")
    assert "LEAK" not in {one["code"] for one in json.loads(out)["verdict"]["findings"]}
