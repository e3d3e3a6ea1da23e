"""Files of formats whose libraries a malformed file can crash, read in a process of their own.

HDF5 and Arrow are never let near a file in this process. A reading process (``sandbox_server``) opens it, under
limits of processor time and memory, and puts blocks of rows into memory that both processes map; it reads the next
block while the last one is used, so that it costs no time. A file that crashes or stalls it is one DataError that
names the file.
The process is started once and serves all files, one after the other; of several read at the same time each has one
of its own, and after a crash a new one takes over.
"""

from __future__ import annotations

import atexit
import mmap
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from pmrl_cli.errors import DataError, Place
from pmrl_cli.files.formats.sandbox_protocol import NEXT, SLOT_BYTES, SLOTS, Channel, error_from

if TYPE_CHECKING:
    import pyarrow as pa

    from pmrl_cli.files.formats.contents import Block, Contents, ProbeOptions
    from pmrl_cli.files.formats.registry import Format

__all__ = ["environment", "probe", "start"]

SECONDS = 10.0
"""Processor time that a request may take, whatever the size of the file."""

MEMORY = 2**30 + 2**29
"""Bytes of memory that a request may take: a chunk of the largest size that is read, and the blocks made of it."""

_MEMORY_PER_BYTE = 8
"""What a file gets besides for each of its bytes: tables of text are read whole."""

_BYTES_PER_SECOND = 4 * 2**20
"""What a file of many bytes gets besides: far slower than the slowest compression reads."""

_PATIENCE = 60
"""How many times that long to wait for an answer: a busy machine or a slow disk is not the file's fault."""


class _Worker:
    """One reading process."""

    def __init__(self) -> None:
        client_end, server_end = socket.socketpair()
        with server_end, _shared_file() as memory:
            self.memory = mmap.mmap(memory.fileno(), SLOTS * SLOT_BYTES)
            descriptors = (server_end.fileno(), memory.fileno())
            # Its own group, so that Ctrl-C is not for it; -P, so that no module is taken from the folder of the
            # files; no plugins for HDF5, whatever a file asks for.
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "pmrl_cli.files.formats.sandbox_server", *map(str, descriptors)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment(),
                pass_fds=descriptors,
                process_group=0,
            )
        self.socket = client_end
        self.channel = Channel(client_end)

    def end(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()
        self.socket.close()


def _shared_file() -> BinaryIO:
    file = os.fdopen(os.memfd_create("pmrl"), "r+b")
    os.ftruncate(file.fileno(), SLOTS * SLOT_BYTES)  # a hole: pages are taken when they are written
    return file


def environment() -> dict[str, str]:
    """Return the environment of a process that opens files: no plugins for HDF5, one thread."""
    here = str(Path(__file__).parents[3])
    outer = os.environ.get("PYTHONPATH")
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HDF5_PLUGIN")}
    return {
        **kept,
        "PYTHONPATH": here if not outer else os.pathsep.join([here, outer]),
        "HDF5_PLUGIN_PRELOAD": "::",  # none, to HDF5
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


_idle: list[_Worker] = []


def start() -> None:
    """Start a reading process now if none is ready, to have it ready when the first file is opened."""
    if not _idle:
        _idle.append(_Worker())


def _end_all() -> None:
    while _idle:
        _idle.pop().end()


atexit.register(_end_all)
os.register_at_fork(after_in_child=_idle.clear)  # they answer to the process that started them


def _exchange(
    path: Path, form: Format, options: ProbeOptions, **request: object
) -> Iterator[tuple[dict[str, Any], memoryview]]:
    """Ask a reading process about a file; yield each answer and the slot its data lie in for as long as a ``Block``.

    Raises: what the process raised; DataError if it died or does not answer.
    """
    from pmrl_cli.files.formats import contents

    with contents.reading(str(path)):
        size = contents.bytes_of(path, options.members)
        # an SVD goes over the values several times for each component
        seconds = SECONDS + size / _BYTES_PER_SECOND * (1 + (options.components or 0))
        where = {"folder": str(Path.cwd()), "path": str(path)}  # the path as typed, for messages
    asked = {"format": form.name, "options": asdict(options), "block": contents.READ_BYTES, "seconds": seconds}
    asked["memory"] = MEMORY + _MEMORY_PER_BYTE * size
    message: dict[str, object] = {**request, **where, **asked}
    try:
        worker = _idle.pop()
    except IndexError:  # none is ready, or another thread was faster
        worker = _Worker()
    worker.socket.settimeout(seconds * _PATIENCE)
    memory, slot, answer = memoryview(worker.memory), 0, {}
    try:
        while "end" not in answer and "error" not in answer:
            answer = _ask(worker, message, _Asked(path, form.title, seconds))
            if "item" in answer:
                yield answer["item"], memory[slot * SLOT_BYTES : (slot + 1) * SLOT_BYTES]
                slot, message = (slot + 1) % SLOTS, dict(NEXT)
    finally:
        if "end" in answer or "error" in answer:
            _idle.append(worker)
        else:  # dead, or left in the middle: it would answer the next request with what is left of this one
            worker.end()
    if "error" in answer:
        raise error_from(answer)


class _Asked(NamedTuple):
    path: Path
    title: str
    seconds: float

    def died(self, how: str) -> DataError:
        return DataError(
            what="file cannot be read",
            at=Place(str(self.path)),
            found=f"the {self.title} library {how} while reading it",
            expected="a whole, readable file of its kind",
            next_step="Check it, write it again, or in smaller chunks if it is large.",
        )


def _ask(worker: _Worker, message: Mapping[str, object], asked: _Asked) -> dict[str, Any]:
    try:
        worker.channel.send(message)
        answer = worker.channel.receive()
    except TimeoutError:
        raise asked.died(f"gave no answer in {asked.seconds * _PATIENCE:.0f} s") from None
    except OSError:
        answer = None
    if answer is None:
        raise asked.died(_cause(worker.process.wait(), asked.seconds))
    return answer


def _cause(status: int, seconds: float) -> str:
    if status == -signal.SIGXCPU:
        return f"took more than {seconds:.0f} s of processor time"
    if status == -signal.SIGKILL:
        return "was killed (perhaps for want of memory)"
    return f"crashed (signal {-status})" if status < 0 else f"ended (status {status})"


def probe(form: Format, path: Path, options: ProbeOptions) -> Contents:
    """Return what a file of a format holds; its arrays and columns are read in the reading process.

    Raises: as the probe of the format; DataError if the file crashes or stalls its library.
    """
    from pmrl_cli.files.formats.contents import Column, Contents, Refused, Vectors

    about = partial(_exchange, path, form, options)
    [(found, _)] = about(do="probe")
    vectors = [
        Vectors(str(path), name, rows, dim, dtype, partial(_blocks, about, index, dim, dtype), *said)
        for index, (name, rows, dim, dtype, *said) in enumerate(found["vectors"])
    ]
    columns = [
        Column(name, rows, nameable, _loader(about, number), index)
        for number, (name, rows, nameable, index) in enumerate(found["columns"])
    ]
    return Contents(
        str(path),
        tuple(vectors),
        tuple(columns),
        tuple(found["others"]),
        tuple(found["notes"]),
        tuple(found["side"]),
        tuple(found["unpooled"]),
        tuple(Refused(*one) for one in found["refused"]),
    )


Exchange = Callable[..., Iterator[tuple[dict[str, Any], memoryview]]]


def _blocks(about: Exchange, index: int, dim: int, dtype: str) -> Iterator[Block]:
    import numpy as np

    stored = "uint16" if dtype == "bfloat16" else dtype
    row_bytes = dim * np.dtype(stored).itemsize
    for answer, slot in about(do="vectors", index=index):
        rows, size = answer["rows"], answer["rows"] * row_bytes
        null = np.frombuffer(slot[size : size + rows], dtype=np.bool_) if answer["null"] else None
        yield np.frombuffer(slot[:size], dtype=stored).reshape(rows, dim), null


def _loader(about: Exchange, index: int) -> Callable[..., pa.Array]:
    def load(*, text: bool = False) -> pa.Array:
        import pyarrow as pa

        parts = []
        for answer, slot in about(do="column", index=index, text=text):
            data = pa.py_buffer(bytes(slot[: answer["bytes"]]))  # a copy: the slot is filled again
            parts.append(pa.ipc.open_stream(data).read_next_batch().column(0))
        return pa.concat_arrays(parts)

    return load
