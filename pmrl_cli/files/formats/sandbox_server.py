"""The reading process: the only one in which the HDF5 and Arrow libraries parse files that are not trustworthy.

``python -m pmrl_cli.files.formats.sandbox_server SOCKET MEMORY`` is started by ``sandbox_client`` and answers three
requests: what a file holds, the blocks of one of its arrays, the values of one of its columns. A malformed file can
crash these libraries, keep them busy for ever or make them ask for any amount of memory; here that costs this process
and no more.
"""

from __future__ import annotations

import json
import mmap
import os
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Iterator
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pmrl_cli.errors import DataError, Place, PmrlError, ResourceError
from pmrl_cli.files.durable.scratch import available_memory
from pmrl_cli.files.formats import contents
from pmrl_cli.files.formats.contents import BFLOAT16, Contents, ProbeOptions, Vectors
from pmrl_cli.files.formats.registry import format_named
from pmrl_cli.files.formats.regular import unreadable
from pmrl_cli.files.formats.sandbox_protocol import NEXT, SLOT_BYTES, SLOTS, Channel, error_message

_COLUMN_BYTES = 2**20
"""What one batch of a column aims at: small, for a column is copied and a block is not."""


Item = tuple[dict[str, object], list[memoryview]]
"""The message about an item, and the bytes that go into its slot."""


class _Server:
    def __init__(self, channel: Channel, memory: memoryview) -> None:
        self._channel = channel
        self._memory = memory
        self._known: dict[tuple[object, ...], Contents] = {}

    def serve(self) -> None:
        """Answer requests until the other end is closed."""
        while (request := self._channel.receive()) is not None:
            if request == NEXT:  # asked for before it was known that there is an error instead
                continue
            path = Path(request["path"])
            try:
                _allow(request["seconds"])
                _ = format_named(request["format"]).probe  # what its library takes for itself is not the file's
                _allow_memory(request["memory"])
                os.chdir(request["folder"])
                self._stream(self._items(path, request), request["seconds"])
            except PmrlError as error:
                self._channel.send(error_message(error))
            except MemoryError:
                self._channel.send(error_message(_no_memory(path)))
            except (BrokenPipeError, ConnectionResetError):
                return
            except Exception as error:  # noqa: BLE001 - a file can make the libraries raise anything
                trace = traceback.format_exc()  # shown by --debug
                self._channel.send({**error_message(_unexpected(path, error)), "trace": trace})

    def _items(self, path: Path, request: dict[str, Any]) -> Iterator[Item]:
        contents = self._contents(path, request)
        if request["do"] == "probe":
            yield _described(contents), []
        elif request["do"] == "vectors":
            yield from _blocks(contents.vectors[request["index"]])
        else:
            column = contents.columns[request["index"]]
            yield from _batches(path, column.name, column.load(text=request["text"]))

    def _contents(self, path: Path, request: dict[str, Any]) -> Contents:
        """Return what the file holds; probed again only if it is another file by now."""
        asked = tuple(json.dumps(request[name]) for name in ("folder", "path", "format", "options", "block"))
        key = (*asked, contents.signature(path, request["options"]["members"]))
        if key not in self._known:
            contents.READ_BYTES = request["block"]
            options = {**request["options"], "members": tuple(request["options"]["members"])}
            self._known[key] = format_named(request["format"]).probe(path, ProbeOptions(**options))
        return self._known[key]

    def _stream(self, items: Iterator[Item], seconds: float) -> None:
        """Put each item into one slot while the other is used; announce it when it is asked for."""
        count = 0
        for item, parts in items:
            at = count % SLOTS * SLOT_BYTES
            for part in parts:
                self._memory[at : at + len(part)] = part
                at += len(part)
            self._send({"item": item}, asked=count == 0)
            count += 1
            _allow(seconds)
        self._send({"end": True}, asked=count == 0)

    def _send(self, message: dict[str, object], *, asked: bool) -> None:
        """Send a message, once it is asked for: the request has asked for the first."""
        if not asked and self._channel.receive() is None:
            raise BrokenPipeError
        self._channel.send(message)


def _described(contents: Contents) -> dict[str, object]:
    return {
        "vectors": [[v.name, v.rows, v.dim, v.dtype, v.ids, v.modality, v.axes] for v in contents.vectors],
        "columns": [[c.name, c.rows, c.nameable, c.index] for c in contents.columns],
        "others": contents.others,
        "notes": contents.notes,
        "side": contents.side,
        "unpooled": contents.unpooled,
        "refused": contents.refused,
    }


def _bytes(array: np.ndarray[Any, Any]) -> memoryview:
    return memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _blocks(vectors: Vectors) -> Iterator[Item]:
    dtype = np.dtype("uint16" if vectors.dtype == BFLOAT16 else vectors.dtype)
    for block, null in vectors.blocks():
        parts = [_bytes(block.astype(dtype, copy=False))] + ([] if null is None else [_bytes(null)])
        yield {"rows": len(block), "null": null is not None}, parts


def _batches(path: Path, name: str, values: pa.Array) -> Iterator[Item]:
    """Yield the values as Arrow streams that fit a slot each."""
    rows = max(1, len(values) * _COLUMN_BYTES // max(1, values.nbytes))
    for start in range(0, max(1, len(values)), rows):
        yield from _fitting(path, name, values.slice(start, rows))


def _fitting(path: Path, name: str, values: pa.Array) -> Iterator[Item]:
    # ``nbytes`` counts the offsets of a slice and not what is around it; values of very unequal length are halved.
    if values.nbytes > SLOT_BYTES // 2:
        if len(values) == 1:
            raise DataError(
                what="value too long",
                at=Place(str(path), name),
                found=f"{values.nbytes} bytes in one row",
                expected=f"at most {SLOT_BYTES // 2}",
                next_step="Leave the column out.",
            )
        half = len(values) // 2
        yield from _fitting(path, name, values.slice(0, half))
        yield from _fitting(path, name, values.slice(half))
        return
    sink = pa.BufferOutputStream()
    batch = pa.record_batch([values], names=[""])
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    data = memoryview(sink.getvalue()).cast("B")
    yield {"bytes": len(data)}, [data]


def _no_memory(path: Path) -> ResourceError:
    return ResourceError(
        what="not enough memory",
        at=Place(str(path)),
        found="a file that needs more than there is",
        expected="one that can be read in pieces",
        next_step="Write it again in smaller chunks or row groups, or free some memory.",
    )


def _unexpected(path: Path, error: Exception) -> DataError:
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:120]
    return unreadable(str(path), None, reason)


def _allow(seconds: float) -> None:
    """Allow so many seconds of processor time from now on; past them the kernel ends this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = ceil(used.ru_utime + used.ru_stime + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))


def _allow_memory(more: int) -> None:
    """Allow so many bytes of memory beyond what this process holds now, whatever is free on the machine."""
    used = 0
    status = Path("/proc/self/status")
    for line in status.read_text(encoding="ascii").splitlines() if status.exists() else ():
        if line.startswith("VmData:"):
            used = int(line.split()[1]) * 1024
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    limit = min(used + more, max(2**30, available_memory()) + used)
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _restrict() -> None:
    """Give up what reading does not need: core dumps, writing files, more memory than there is."""
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    for kind, limit in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_DATA, max(2**30, available_memory())),
    ):
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def main() -> None:
    """Serve the socket and the memory whose descriptors the command line names."""
    end = socket.socket(fileno=int(sys.argv[1]))
    memory = mmap.mmap(int(sys.argv[2]), SLOTS * SLOT_BYTES)
    _restrict()
    _Server(Channel(end), memoryview(memory)).serve()


if __name__ == "__main__":
    main()
