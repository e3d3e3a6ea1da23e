"""Runs ``pmrl`` as typed, in a process of its own that need not import anything.

One process for each worker of pytest imports what commands import, and is forked for each command: the two seconds of
torch and its neighbours are spent once. What must see Python start (the seed of hashes, a kill while it imports) does
start it.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.limits import HUNG

ROOT = Path(__file__).parents[1]
IMPORTED = (
    "pmrl_cli.aligner",
    "pmrl_cli.fit",
    "pmrl_cli.diagnosis",
    "pmrl_cli.report",
    "pmrl_cli.retrieval",
    "pmrl_cli.files.join.dataset",
    "pmrl_cli.files.artifacts.store",
    "rich.table",
    "rich.progress",
)

_server: tuple[subprocess.Popen[bytes], socket.socket] | None = None


def pmrl(*arguments: object, cwd: Path | None = None, env: dict[str, str] | None = None, stdin: str = ""):
    """Return the code, the output and the errors of ``pmrl ARGUMENTS``, as ``subprocess.run`` does.

    Args:
        arguments: what is typed after ``pmrl``.
        cwd: folder it is typed in.
        env: variables besides those of this process.
        stdin: its standard input.
    """
    if _server is None or _server[0].poll() is not None:
        _start()
    assert _server is not None
    command = ["pmrl", *map(str, arguments)]
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        given.write(stdin.encode())
        given.seek(0)
        asked = {"argv": command, "cwd": str(cwd or Path.cwd()), "env": {**os.environ, **(env or {})}}
        content = json.dumps(asked).encode()
        connection = _server[1]
        socket.send_fds(
            connection, [len(content).to_bytes(4, "little")], [given.fileno(), out.fileno(), errors.fileno()]
        )
        connection.sendall(content)
        connection.settimeout(HUNG)
        try:
            code = int.from_bytes(_exactly(connection, 4), "little", signed=True)
        except (TimeoutError, EOFError):
            os.killpg(_server[0].pid, signal.SIGKILL)
            raise
        texts = []
        for file in (out, errors):
            file.seek(0)
            texts.append(file.read().decode())
    return subprocess.CompletedProcess(command, code, *texts)


def _start() -> None:
    global _server
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.typed", str(theirs.fileno())],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        pass_fds=[theirs.fileno()],
        start_new_session=True,
    )
    theirs.close()
    _server = process, ours
    atexit.register(_end, process, ours)


def _end(process: subprocess.Popen[bytes], connection: socket.socket) -> None:
    connection.close()
    process.wait()


def _exactly(connection: socket.socket, count: int) -> bytes:
    content = b""
    while len(content) < count:
        part = connection.recv(count - len(content))
        if not part:
            raise EOFError
        content += part
    return content


def _serve(connection: socket.socket) -> None:
    """Fork for each command that is asked for, until nobody asks any more."""
    import importlib

    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()
    while True:
        head, descriptors, _, _ = socket.recv_fds(connection, 4, 3)
        if not head:
            return
        asked = json.loads(_exactly(connection, int.from_bytes(head, "little")))
        number = os.fork()
        if number == 0:
            connection.close()
            _become(asked, descriptors)
            return
        for descriptor in descriptors:
            os.close(descriptor)
        code = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
        connection.sendall(code.to_bytes(4, "little", signed=True))


def _become(asked: dict, descriptors: list[int]) -> None:
    from pmrl_cli.__main__ import main

    for standard, descriptor in enumerate(descriptors):
        os.dup2(descriptor, standard)
        os.close(descriptor)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    sys.argv = asked["argv"]
    code = 0
    try:
        main()
    except SystemExit as leave:
        code = leave.code if isinstance(leave.code, int) else 0
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # taking all those modules apart would take a second more


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
