"""Runs ``pmrl`` as typed, or a script, in a process of its own that need not import anything.

One process for each worker of pytest imports what commands import, and is forked for each command: the two seconds of
torch and its neighbours are spent once. What must see Python start (the seed of hashes, a kill while it imports) does
start it.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from tests.limits import HUNG

ROOT = Path(__file__).parents[1]
IMPORTED = (
    "pmrl_cli.cli.main",  # first: it sets what the libraries read when they are loaded
    "pmrl_cli.cli.fit",
    "pmrl_cli.cli.diagnose",
    "pmrl_cli.cli.evaluate",
    "pmrl_cli.cli.export",
    "pmrl_cli.aligner",
    "pmrl_cli.fit",
    "pmrl_cli.diagnosis",
    "pmrl_cli.diagnosis.sections",
    "pmrl_cli.diagnosis.run",
    "pmrl_cli.diagnosis.rules.verdict",
    "pmrl_cli.methods.pmrl",
    "pmrl_cli.retrieval",
    "pmrl_cli.retrieval.search",
    "pmrl_cli.files.join.dataset",
    "pmrl_cli.files.join.inspection",
    "pmrl_cli.files.artifacts.export",
    "pmrl_cli.files.artifacts.writers.parquet",
    "pmrl_cli.files.artifacts.store",
    "pmrl_cli.files.formats.hdf5",
    "tests.forked_readers",
    "typer._adapters",
    "torch.distributed",
    "rich.table",
    "rich.progress",
)
OPTIONAL = ("pmrl_cli.report", "pmrl_cli.report.svg")
"""What commands import where it is installed."""
ENDED = struct.Struct("<id")
"""Exit code (minus the signal that ended it) and CPU seconds."""

_server: tuple[subprocess.Popen, str] | None = None
_running: set[Command] = set()


class Command:
    """``pmrl ARGUMENTS``, as it runs.

    Args:
        arguments: what is typed after the program.
        program: ``pmrl``, or the path of a Python script.
        cwd: folder it is typed in.
        env: variables besides those of this process.
        stdin: its standard input.
        stdout, stderr: open files of the caller that take its outputs; without one, ``communicate`` returns them.
    """

    def __init__(self, *arguments, program="pmrl", cwd=None, env=None, stdin="", stdout=None, stderr=None):
        self.arguments = [str(program), *map(str, arguments)]
        self.returncode, self.seconds = None, 0.0
        self._files = {name: tempfile.TemporaryFile() for name in ("stdin", "stdout", "stderr")}  # noqa: SIM115
        self._files["stdin"].write(stdin.encode())
        self._files["stdin"].seek(0)
        given = {"stdin": None, "stdout": stdout, "stderr": stderr}
        standard = [self._files[name].fileno() if given[name] is None else given[name] for name in given]
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(address())
        asked = {"argv": self.arguments, "cwd": str(cwd or Path.cwd()), "env": {**os.environ, **(env or {})}}
        _ask(self._connection, asked, standard)
        self._connection.settimeout(HUNG)
        self.pid = int.from_bytes(_exactly(self._connection, 4), "little")
        _running.add(self)

    def poll(self):
        """Return the exit code, None while it runs."""
        if self.returncode is None and select.select([self._connection], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self):
        """Return the exit code once it has ended."""
        if self.returncode is None:
            try:
                self.returncode, self.seconds = ENDED.unpack(_exactly(self._connection, ENDED.size))
            except TimeoutError:
                self.send_signal(signal.SIGKILL)
                raise
            _running.discard(self)
            self._connection.close()
        return self.returncode

    def send_signal(self, number):
        """Send it a signal."""
        os.kill(self.pid, number)

    def communicate(self):
        """Return what it wrote to standard output and standard error, once it has ended."""
        self.wait()
        texts = []
        for name in ("stdout", "stderr"):
            self._files[name].seek(0)
            texts.append(self._files[name].read().decode(errors="surrogateescape"))
        for file in self._files.values():
            file.close()
        return tuple(texts)


def end_all():
    """Kill what a test started and left running, as one that fails does."""
    for command in list(_running):
        command.send_signal(signal.SIGKILL)
        command.communicate()


def pmrl(*arguments, **options):
    """Return the code, the output and the errors of a command that has ended, as ``subprocess.run`` does.

    ``program`` runs a script instead.
    """
    command = Command(*arguments, **options)
    out, err = command.communicate()
    return subprocess.CompletedProcess(command.arguments, command.returncode, out, err)


def put_command(folder):
    """Write a command ``pmrl`` for shells into a folder."""
    path = folder / "pmrl"
    path.write_text(f"#!{sys.executable} -IS\n{_CLIENT.format(address=address())}", encoding="utf-8")
    path.chmod(0o755)


_CLIENT = """
import json, os, signal, socket, struct, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect({address!r})
content = json.dumps(dict(argv=["pmrl", *sys.argv[1:]], cwd=os.getcwd(), env=dict(os.environ))).encode()
socket.send_fds(connection, [len(content).to_bytes(4, "little")], [0, 1, 2])
for standard in (0, 1, 2):
    os.close(standard)
connection.sendall(content)
answer = b""
while len(answer) < 16 and (part := connection.recv(16 - len(answer))):  # a signal cuts short what waits for all
    answer += part
code = struct.unpack("<4xid", answer)[0]
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
"""


def address():
    """Return where the process listens that is forked for each command; start it if there is none."""
    global _server
    if _server is None or _server[0].poll() is not None:
        folder = tempfile.mkdtemp(prefix="pmrl-tests-")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"{folder}/socket")
        listener.listen()
        ours, theirs = socket.socketpair()
        with listener, theirs:
            kept = [listener.fileno(), theirs.fileno()]
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.typed", *map(str, kept)],
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                pass_fds=kept,
            )
        _server = process, f"{folder}/socket"
        atexit.register(_end, process, ours, folder)
    return _server[1]


def _end(process, alive, folder):
    alive.close()
    process.wait()
    shutil.rmtree(folder)


def _ask(connection, asked, standard):
    content = json.dumps(asked).encode()
    socket.send_fds(connection, [len(content).to_bytes(4, "little")], standard)
    connection.sendall(content)


def _exactly(connection, count):
    content = b""
    while len(content) < count:
        part = connection.recv(count - len(content))
        if not part:
            raise EOFError
        content += part
    return content


def _serve(listener, alive):
    """Fork for each command that is asked for, until the tests are over."""
    for name in IMPORTED:
        importlib.import_module(name)
    for name in OPTIONAL:
        with suppress(ImportError):
            importlib.import_module(name)
    gc.freeze()
    waiting = set()
    while True:
        if alive in select.select([listener, alive], [], [])[0]:
            return
        connection = listener.accept()[0]
        number = os.fork()
        if number == 0:
            listener.close()
            alive.close()
            _supervise(connection)
        connection.close()
        waiting = {one for one in waiting | {number} if not os.waitpid(one, os.WNOHANG)[0]}


def _supervise(connection):
    """Run one command and tell how it ended."""
    head, standard, _, _ = socket.recv_fds(connection, 4, 3)
    asked = json.loads(_exactly(connection, int.from_bytes(head, "little")))
    number = os.fork()
    if number == 0:
        connection.close()
        _become(asked, standard)
    for one in standard:
        os.close(one)
    connection.sendall(number.to_bytes(4, "little"))
    _, status, used = os.wait4(number, 0)
    connection.sendall(ENDED.pack(os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime))
    os._exit(0)


def _become(asked, standard):
    for number, descriptor in enumerate(standard):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115 - as Python opens them
    sys.stdout = open(1, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1)  # noqa: SIM115
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    sys.argv = asked["argv"]
    code = 0
    try:
        _run(asked["argv"][0])
    except SystemExit as leave:
        code = leave.code if isinstance(leave.code, int) else 0
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # taking all those modules apart would take a second more


def _run(program):
    if program == "pmrl":
        from pmrl_cli.__main__ import main
        from tests.forked_readers import fork_readers

        fork_readers()
        main()
    else:
        runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    _serve(*(socket.socket(fileno=int(number)) for number in sys.argv[1:]))
