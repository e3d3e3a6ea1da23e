"""Runs a function in a forked process and kills it, or fails its calls, at the n-th system call that writes.

ptrace sees the calls of every library (HDF5, Arrow and safetensors write from compiled code), and needs nothing but
Linux and Python. x86-64 only: the number of a call and the place of its result are those of that machine.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

CREATING = os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_RDWR
DATA = {1: "write", 18: "pwrite64", 20: "writev", 296: "pwritev", 328: "pwritev2", 326: "copy_file_range"}
GROWING = {77: "ftruncate", 285: "fallocate", 83: "mkdir", 258: "mkdirat"}
OPENING = {2: "open", 257: "openat", 85: "creat"}
SYNCING = {74: "fsync", 75: "fdatasync"}
RENAMING = {82: "rename", 264: "renameat", 316: "renameat2"}
REMOVING = {84: "rmdir", 87: "unlink", 263: "unlinkat"}
NAMES = DATA | GROWING | OPENING | SYNCING | RENAMING | REMOVING

_TRACEME, _SYSCALL, _POKEUSER, _SETOPTIONS, _GET_SYSCALL_INFO = 0, 24, 6, 0x4200, 0x420E
# system calls distinguished from signals; threads followed, processes that it starts are not (they only read);
# all die with us
_OPTIONS = 0x1 | 0x8 | 0x100000
_ENTRY, _EXIT = 1, 2
_ORIG_RAX, _RAX = 15 * 8, 10 * 8
_WALL = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


class _Info(ctypes.Structure):
    _fields_ = (
        ("op", ctypes.c_uint8),
        ("pad", ctypes.c_uint8 * 3),
        ("arch", ctypes.c_uint32),
        ("ip", ctypes.c_uint64),
        ("sp", ctypes.c_uint64),
        ("nr", ctypes.c_uint64),
        ("args", ctypes.c_uint64 * 6),
        ("more", ctypes.c_uint64 * 2),
    )


@dataclass
class Outcome:
    """How a run ended.

    Args:
        calls: names of its write-type system calls, in order.
        code: exit code, or minus the signal that ended it.
        hit: name of the call at which something was done, "" if the run ended before.
    """

    calls: list[str] = field(default_factory=list)
    code: int | None = None
    hit: str = ""


def _ptrace(request: int, pid: int, address: int = 0, data: int = 0) -> int:
    result = int(_libc.ptrace(request, pid, address, data))
    if result == -1 and ctypes.get_errno() not in (0, errno.ESRCH):  # ESRCH: killed meanwhile
        raise OSError(ctypes.get_errno(), f"ptrace {request:#x}")
    return result


def _is_writing(info: _Info) -> bool:
    number, first = info.nr, ctypes.c_int(info.args[0]).value
    if number in DATA:
        return first > 2  # what is said on the standard streams is no output
    if number in OPENING:
        flags = info.args[{2: 1, 257: 2, 85: 1}[number]]
        return number == 85 or bool(flags & CREATING)
    return number in NAMES


def plain(function: Callable[[], int], said: Path) -> int:
    """Run ``function`` in a fork, nothing done to it; return its exit code."""
    pid = _fork(function, said, traced=False)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _fork(function: Callable[[], int], said: Path, *, traced: bool) -> int:
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            sys.stdout.flush()
            file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(file, 2)
            if traced:
                _libc.ptrace(_TRACEME, 0, None, None)
                os.kill(os.getpid(), signal.SIGSTOP)
            code = function()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return pid


def run(
    function: Callable[[], int],
    said: Path,
    *,
    at: int | None = None,
    error: int | None = None,
    lasting: bool = False,
) -> Outcome:
    """Run ``function`` in a fork, its return value the exit code.

    Args:
        function: what to do there.
        said: file that takes its standard error.
        at: number of the write-type call, from 1, that is met; None only counts.
        error: the errno with which it fails; None kills the process as it enters the call.
        lasting: fail every later call too that needs room, as on a disk that stays full.
    """
    pid = _fork(function, said, traced=True)
    os.waitpid(pid, _WALL)
    _ptrace(_SETOPTIONS, pid, 0, _OPTIONS)
    _ptrace(_SYSCALL, pid)
    outcome = Outcome()
    failing: set[int] = set()
    info = _Info()
    while True:
        thread, status = os.waitpid(-1, _WALL)
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            if thread != pid:
                continue
            outcome.code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
            return outcome
        number = os.WSTOPSIG(status)
        if number == signal.SIGTRAP | 0x80:
            _libc.ptrace(_GET_SYSCALL_INFO, thread, ctypes.sizeof(info), ctypes.addressof(info))
            if info.op == _EXIT and thread in failing:
                failing.discard(thread)
                _ptrace(_POKEUSER, thread, _RAX, -(error or 0))
            elif info.op == _ENTRY and _is_writing(info):
                name = NAMES[info.nr]
                outcome.calls.append(name)
                here = at is not None and len(outcome.calls) == at
                later = lasting and outcome.hit and info.nr in DATA | GROWING | OPENING
                if here:
                    outcome.hit = name
                if here and error is None:
                    os.kill(pid, signal.SIGKILL)
                    continue
                if here or later:
                    failing.add(thread)
                    _ptrace(_POKEUSER, thread, _ORIG_RAX, -1)  # no such call
            _ptrace(_SYSCALL, thread)
        elif status >> 16 or number in (signal.SIGSTOP, signal.SIGTRAP):  # a clone, and its first stop
            _ptrace(_SYSCALL, thread)
        else:
            _ptrace(_SYSCALL, thread, 0, number)


def why_not() -> str:
    """Return why faults cannot be injected here, "" if they can."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return "ptrace is used as on Linux, x86-64"
    try:
        met = run(lambda: os.mkdir("/proc/x") or 0, Path(os.devnull), at=1, error=errno.ENOSPC)  # noqa: PTH102
    except OSError as error:
        return f"ptrace is not allowed: {error}"
    return "" if met.hit == "mkdir" else "ptrace sees no system call"
