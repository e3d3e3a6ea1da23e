"""The boundary: what cannot be helped is one line and its exit code."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pmrl_cli.cli import main
from pmrl_cli.cli.fit import _StopRequest
from pmrl_cli.closed_form.gcca import SOLVERS
from tests import typed
from tests.faults import inject
from tests.limits import HUNG

ROOT = Path(__file__).parents[2]


class OutOfMemoryError(RuntimeError):
    """Named as that of torch, which the boundary cannot import."""


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (MemoryError("Unable to allocate 6.10 GiB for an array"), 5, "Unable to allocate 6.10 GiB"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), 5, "tried to"),
        (RuntimeError("can't start new thread"), 5, "can't start new thread"),
        (OSError(12, "Cannot allocate memory"), 5, "Cannot allocate memory"),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), 5, "Tried to allocate 2.00 GiB"),
        (OSError(28, "No space left on device", "a/b"), 5, "a/b: No space left on device"),
        (RuntimeError("something else"), 70, "internal error: RuntimeError: something else"),
    ],
    ids=["numpy", "torch cpu", "thread", "mmap", "torch cuda", "disk", "bug"],
)
def test_an_error_of_the_machine_is_one_line_and_its_code(monkeypatch, capsys, error, code, words):
    def fail(**_):
        raise error

    monkeypatch.setattr(main, "command_line", fail)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGPIPE, signal.SIGTERM)}
    try:
        with pytest.raises(SystemExit) as left:
            main.run()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    captured = capsys.readouterr()
    assert left.value.code == code
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert len(captured.err.splitlines()) == 1
    assert words in captured.err
    if code == 5 and "space" not in words:
        assert "available. Pass a --max-memory well below" in captured.err


def test_the_first_signal_stops_training_gracefully_and_the_second_at_once():
    request = _StopRequest()
    with pytest.raises(SystemExit, match="143"):  # not training: there is nothing to save
        request(signal.SIGTERM, None)
    request.training = True
    assert not request.asked()
    request(signal.SIGINT, None)
    assert request.asked()
    with pytest.raises(SystemExit, match="130"):
        request(signal.SIGINT, None)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_standard_output_that_takes_nothing_is_an_error_of_the_disk(tmp_path):
    features = sorted(str(path) for path in (ROOT / "sample_data" / "features").iterdir())
    for arguments in (["inspect", *features, "-q"], ["inspect", *features, "--json", "-q"]):
        with Path("/dev/full").open("wb") as full:
            command = typed.Command(*arguments, cwd=tmp_path, stdout=full.fileno())
        said = command.communicate()[1]
        assert (command.returncode, len(said.splitlines())) == (5, 1), said
        assert "No space left on device" in said


def test_a_reader_that_goes_away_ends_the_command_as_it_ends_any_filter(tmp_path):
    features = sorted(str(path) for path in (ROOT / "sample_data" / "features").iterdir())
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = typed.Command("inspect", *features, "--json", "-q", cwd=tmp_path, stdout=write_end)
    os.close(write_end)
    assert command.communicate()[1] == ""
    assert command.returncode == -signal.SIGPIPE


def test_nothing_is_written_but_what_is_asked_for_and_no_home_is_needed(tmp_path):
    features = sorted(str(path) for path in (ROOT / "sample_data" / "features").iterdir())
    for name in ("work", "temporary"):
        (tmp_path / name).mkdir()
    nowhere = {"HOME": "/proc/no/home", "XDG_CACHE_HOME": "/proc/no/cache", "TMPDIR": str(tmp_path / "temporary")}
    done = typed.pmrl("ingest", *features, "-o", "store", "-q", cwd=tmp_path / "work", env=nowhere)
    assert (done.returncode, done.stdout, done.stderr) == (0, "store\n", "")
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["store"]
    assert not list((tmp_path / "temporary").iterdir())


@pytest.mark.skipif(not shutil.which("strace") or bool(inject.why_not()), reason="there is no strace that may trace")
def test_no_path_is_opened_but_those_of_the_command_line_of_the_system_and_of_python(tmp_path):
    for name in ("work", "home", "temporary"):
        (tmp_path / name).mkdir()
    features = sorted(str(path) for path in (ROOT / "sample_data" / "features").iterdir())
    traced = shlex.split("strace -f --seccomp-bpf -qq -y -s 4096 -e trace=open,openat,creat,socket -o ../trace")
    words = ["fit", *features, "--steps", "0", "--adapter", "linear", "--no-refit", "-o", "model", "-q"]
    # What measures coverage writes a file of its own.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    subprocess.run(
        [*traced, sys.executable, "-m", "pmrl_cli", *words],
        cwd=tmp_path / "work",
        env={
            **inherited,
            "PYTHONPATH": str(ROOT),
            "HOME": str(tmp_path / "home"),
            "TMPDIR": str(tmp_path / "temporary"),
        },
        check=True,
        capture_output=True,
        timeout=HUNG,
    )
    trace = (tmp_path / "trace").read_text(encoding="utf-8", errors="replace")
    opened = [(Path(path), flags) for flags, path in re.findall(r', "[^"]*", (\S+?)[,)].* = \d+<([^>]*)>', trace)]
    asked = [tmp_path / "work", tmp_path / "temporary", *map(Path, features)]
    # An editable install keeps its metadata beside the package.
    package = [ROOT / "pmrl_cli", ROOT / "pmrl_cli.egg-info"]
    python = [Path(sys.prefix), Path(sys.base_prefix), Path(torch.__file__).parents[1], *package]
    system = [Path(top) for top in ("/lib", "/lib64", "/usr", "/etc", "/proc", "/sys", "/dev")]
    assert {Path(path) for path in features} <= {path for path, _ in opened}
    allowed = asked + python + system
    assert {path for path, _ in opened if not any(path.is_relative_to(top) for top in allowed)} <= {ROOT}
    written = {path for path, flags in opened if re.search("O_WRONLY|O_RDWR|O_CREAT", flags)}
    outside = {path for path in written if not any(path.is_relative_to(top) for top in asked[:2])}
    assert {path for path in outside if "__pycache__" not in path.parts} <= {Path("/dev/null")}
    assert "AF_INET" not in trace


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_interrupted_while_it_writes_leaves_what_was_there(tmp_path, number):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "manifest.json").write_text('{"format": "pmrl.store"}', encoding="utf-8")
    code = """
import sys, time
from pmrl_cli.cli.main import run
from pmrl_cli.files.artifacts import store
def for_ever(*_, **__):
    print("writing", file=sys.stderr, flush=True)
    time.sleep(3600)
store.fill_all = for_ever
run()
"""
    features = sorted(str(path) for path in (ROOT / "sample_data" / "features").iterdir())
    with subprocess.Popen(
        [sys.executable, "-c", code, "ingest", *features, "-o", "store"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr.readline() == b"writing\n"
        process.send_signal(number)
        out, err = process.communicate(timeout=HUNG)
    assert (process.returncode, out, err.strip()) == (128 + number, b"", b"")
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["store", "store/manifest.json"]


def test_the_help_names_every_closed_form():
    # by hand, since importing them imports numpy
    (objective,) = [p for p in main.command_line.commands["fit"].params if p.name == "objective"]
    assert set(SOLVERS) <= set(objective.help.replace(",", " ").split())
