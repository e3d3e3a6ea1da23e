"""One config file for a pipeline: a table for each command, what they share at the top."""

import json

import pytest

from pmrl_cli.cli.main import command_line
from pmrl_cli.errors import UsageError
from tests.run_command import CommandRunner
from tests.simulate import simulate


@pytest.fixture
def run(monkeypatch, capsys):
    return CommandRunner(monkeypatch, capsys)


def test_a_command_takes_the_keys_at_the_top_that_it_has_and_its_own_table(run, tmp_path):
    path = tmp_path / "pipeline.toml"
    path.write_text(
        'seed = 3\nsteps = 0\njoin = "inner"\n[evaluate]\nqueries = 30\njson = true\n[fit]\nseed = 5\n',
        encoding="utf-8",
    )
    found = json.loads(run("evaluate", simulate(50, 2, 4), "--config", str(path))[1])
    assert (found["seed"], found["queries"], run.asked["join"]) == (3, 30, "inner")
    found = json.loads(run("evaluate", simulate(50, 2, 4), "--config", str(path), "--seed", "8")[1])
    assert found["seed"] == 8
    path.write_text("seed = 3\n[evaluate]\nseed = 4\njson = true\n", encoding="utf-8")
    assert json.loads(run("evaluate", simulate(50, 2, 4), "--config", str(path))[1])["seed"] == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps = 0\n", "unknown config key: .*'steps', expected one of"),  # of fit, and there is no table of it
        ("seeed = 1\n[evaluate]\n", "unknown config key: .*'seeed'"),
        ("[evaluate]\nsteps = 0\n", r"unknown config key in \[evaluate\]: .*'steps'.*See pmrl evaluate --help"),
        ("[fit]\nqueries = 2\n", r"unknown config key in \[fit\]: .*'queries'.*See pmrl fit --help"),
        ("[fitt]\nsteps = 2\n", "unknown config key: .*'fitt'"),
    ],
)
def test_a_key_that_no_command_of_the_file_has_is_refused(tmp_path, text, message):
    path = tmp_path / "pipeline.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        command_line(["evaluate", "absent.h5", "--config", str(path)], standalone_mode=False)
