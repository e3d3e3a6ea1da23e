"""The boundary: what cannot be helped is one line and its exit code."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pmrl_cli.cli import main
from pmrl_cli.cli.fit import _StopRequest

ROOT = Path(__file__).parents[2]


class OutOfMemoryError(RuntimeError):
    """Named as that of torch, which the boundary cannot import."""


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (MemoryError("Unable to allocate 6.10 GiB for an array"), 5, "Unable to allocate 6.10 GiB"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), 5, "tried to"),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), 5, "Tried to allocate 2.00 GiB"),
        (OSError(28, "No space left on device", "a/b"), 5, "a/b: No space left on device"),
        (RuntimeError("something else"), 70, "internal error: RuntimeError: something else"),
    ],
    ids=["numpy", "torch cpu", "torch cuda", "disk", "bug"],
)
def test_an_error_of_the_machine_is_one_line_and_its_code(monkeypatch, capsys, error, code, words):
    def fail(**_):
        raise error

    monkeypatch.setattr(main, "app", fail)
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
        assert "available. Pass a --max-memory well below that" in captured.err


def test_the_first_signal_asks_training_to_stop_and_the_second_ends_at_once():
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
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for arguments in (["inspect", *features, "-q"], ["inspect", *features, "--json", "-q"]):
        with Path("/dev/full").open("wb") as full:
            done = subprocess.run(
                [sys.executable, "-m", "pmrl_cli", *arguments],
                cwd=tmp_path,
                env=environment,
                stdout=full,
                stderr=subprocess.PIPE,
            )
        said = done.stderr.decode()
        assert (done.returncode, len(said.splitlines())) == (5, 1), said
        assert "No space left on device" in said
