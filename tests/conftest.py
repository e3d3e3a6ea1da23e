"""What every test runs under."""

import contextlib
import mmap
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import settings

# Before NumPy and torch are loaded: tests share the machine with each other and with what they start, and threads
# that wait for each other took four times the processor time.
for _name, _value in (
    ("OMP_NUM_THREADS", "1"),
    ("OPENBLAS_NUM_THREADS", "1"),
    ("OMP_WAIT_POLICY", "PASSIVE"),
    ("GOMP_SPINCOUNT", "0"),
):
    os.environ.setdefault(_name, _value)

from pmrl_cli.files.formats import sandbox_client, sandbox_protocol, sandbox_server  # noqa: E402
from tests import typed  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent / "hostile"))  # its makers and its fuzzer are modules

settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("deep", max_examples=10_000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


class _Thread:
    """A reading process that is none: its server in a thread, without limits."""

    def __init__(self):
        ours, theirs = socket.socketpair()
        self.memory = mmap.mmap(-1, sandbox_protocol.SLOTS * sandbox_protocol.SLOT_BYTES)
        self.socket, self.channel = ours, sandbox_protocol.Channel(ours)
        self.process = SimpleNamespace(wait=lambda: 0)
        self.ends = [ours, self.channel._file, theirs]
        channel = sandbox_protocol.Channel(theirs)
        self.ends.append(channel._file)
        self.thread = threading.Thread(target=sandbox_server._Server(channel, memoryview(self.memory)).serve)
        self.thread.start()

    def end(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        for end in self.ends:
            end.close()


@pytest.fixture
def thread_reader(monkeypatch):
    """Run a test with the code of the reading process in this one, where coverage can see it."""
    monkeypatch.setattr(sandbox_server, "_allow", lambda seconds: None)
    monkeypatch.setattr(sandbox_server, "_allow_memory", lambda more: None)
    monkeypatch.setattr(sandbox_client, "_Worker", _Thread)
    monkeypatch.setattr(sandbox_client, "_idle", [])
    yield
    sandbox_client._end_all()


@pytest.fixture(params=["process", "thread"])
def either_reader(request):
    """Run a test with the reading process, and with the same code in this one."""
    if request.param == "thread":
        request.getfixturevalue("thread_reader")


@pytest.fixture(autouse=True)
def _products_as_they_were():
    """Commands choose how this CPU multiplies, for the whole process: the next test starts as this one did."""
    torch = sys.modules.get("torch")
    before = torch.get_float32_matmul_precision() if torch else None
    yield
    if before is not None:
        torch.set_float32_matmul_precision(before)


def _children():
    """Return the processes that this one started and has not waited for, by number."""
    found = set()
    for task in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # the thread ended meanwhile
            found |= {int(number) for number in task.read_text().split()}
    return found


def _is_kept(number):
    # The reading process, and those that count and start processes, serve one test after the other.
    # One without a command line is being started just now, or has ended.
    command = Path(f"/proc/{number}/cmdline").read_bytes()
    return not command or any(
        word in command for word in (b"pmrl_cli.files", b"resource_tracker", b"forkserver", b"tests.typed")
    )


@pytest.fixture(autouse=True)
def _processes_end_with_their_test():
    """End what a test started and left running, as a test that fails does: it would slow down every later one."""
    before = _children()
    yield
    typed.end_all()
    for number in _children() - before:
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # it ended meanwhile
            if not _is_kept(number):
                os.kill(number, signal.SIGKILL)
