import json
import re

import numpy as np
import pytest

from pmrl_cli.cli.diagnose_screen import show
from pmrl_cli.errors import UsageError
from tests.run_command import CommandRunner
from tests.simulate import dataset_of, simulate


@pytest.fixture
def run(monkeypatch, capsys):
    return CommandRunner(monkeypatch, capsys)


@pytest.mark.parametrize(
    ("kind", "modalities"), [("healthy", 2), ("healthy", 3), ("healthy", 6), ("gap", 2), ("gap", 3), ("small", 4)]
)
def test_the_screen_fits_and_shows_value_chance_and_interval(run, capsys, modalities, kind):
    options = {"healthy": {}, "gap": {"offset": 30.0, "noise": 2.0}, "small": {"n": 40, "missing": 0.3}}[kind]
    data = simulate(**{"n": 120, "modalities": modalities, "dim": 16, **options})
    code, out, err = run("diagnose", data, "--json")
    assert (code, err) == (0, "")
    result = json.loads(out)
    show(result)
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in out
    assert "\x1b" not in out
    head = f"{result['verdict']['code']} [{result['verdict']['severity']}]  "
    assert lines[3].removeprefix("x ").removeprefix("! ").startswith(head)
    assert any(line.startswith(("  do: ", "  do first: ")) for line in lines)
    number = result["alignment"]["A"]
    low, high = number["ci"]
    row = next(line for line in lines if line.startswith("agreement above chance (A)")).split()[4:]
    shown = [word for word in row if not set(word) <= set("█░·=#-")]  # the bar, where there is room for one
    assert shown == [f"{number['value']:.3f}", "0.000", f"{low:.3f}", "..", f"{high:.3f}"]


def test_more_findings_than_the_screen_holds_are_named(run):
    generator = np.random.default_rng(0)
    z, point = generator.normal(size=(40, 64)), np.ones((40, 64)) + 1e-2 * generator.normal(size=(40, 64))
    _, out, _ = run("diagnose", dataset_of({"a": z, "b": -z, "c": point, "d": point[::-1]}))
    rest = re.compile(r"  and \d+ more \(--full\): [A-Z_, ]*N_SMALL[A-Z_, ]*")
    assert any(rest.fullmatch(line) for line in out.splitlines())


def test_a_collapse_has_no_adjusted_alignment_and_says_why(run):
    code, out, _ = run("diagnose", dataset_of({"a": np.ones((60, 4)), "b": np.ones((60, 4))}))
    assert code == 0
    line = next(line for line in out.splitlines() if line.startswith("agreement above chance (A)"))
    assert line.split()[4:] == ["-", "0.000", "collapsed"]
    assert "COLLAPSE" in out


def test_gates_take_short_names_and_paths_and_an_unanswered_one_is_not_met(run):
    data = simulate(250, 2, 16, noise=0.1)
    assert run("diagnose", data, "--fail-under", "A=0.5", "--fail-under", "pair.m0|m1.cosine_adjusted=0.5")[0] == 0
    code, _, err = run("diagnose", data, "--fail-under", "A=0.999999")
    assert code == 1
    assert err.startswith("not met: A is 0.9")
    collapsed = dataset_of({"a": np.ones((60, 4)), "b": np.ones((60, 4))})
    assert run("diagnose", collapsed, "--fail-under", "A=-9")[::2] == (1, "not met: A is -, under -9\n")
    with pytest.raises(UsageError, match="unknown key of --fail-under: 'alignment', expected one of A, rho, signed"):
        run("diagnose", data, "--fail-under", "alignment=0.5")


def test_json_is_one_sorted_object(run):
    _, out, _ = run("diagnose", simulate(60, 2, 8), "--json", "--seed", "3")
    result = json.loads(out)
    assert (result["schema"], result["config"]["seed"]) == ("pmrl.diagnose/2", 3)
    assert out == json.dumps(result, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"
