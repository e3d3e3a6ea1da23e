"""The processes of one command: alone, or several that a launcher such as torchrun started.

The only user of torch.distributed. With one process every operation is the identity, so callers need no special case.
Rank 0 alone writes and prints; a decision that depends on computed numbers is broadcast from it
(``broadcast_json``), since two machines may round one of them differently.
"""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import accumulate, pairwise
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from pmrl_cli.batch import SINGLE, BatchGroup
from pmrl_cli.errors import PeerError, UsageError, is_out_of_memory

__all__ = ["SINGLE_PROCESS", "ProcessGroup", "broadcast_arrays", "gather_arrays", "launched_size", "process_group"]

T = TypeVar("T")
Array = npt.NDArray[Any]

PATIENCE = timedelta(minutes=30)
"""Longest that one process waits for another that is alive: rank 0 may be writing a large model."""

_SENT_BYTES = 2**26
"""Of an array that are sent at once."""

_CAUSE = "pmrl/cause"
_CAUSE_WAIT = timedelta(seconds=5)
"""Wait for the error of a process that ended, which it stores before its connections close."""


class ProcessGroup(Protocol):
    """All processes of one command, as one of them sees them."""

    rank: int
    size: int

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Add up a tensor over all processes, in place; every process gets the same bits."""
        ...

    def broadcast_json(self, value: T) -> T:
        """Return the value of rank 0: anything JSON can hold (a tuple comes back as a list)."""
        ...

    def broadcast_bytes(self, content: bytes | None) -> bytes:
        """Return the bytes that rank 0 gives; what the others give is ignored."""
        ...

    def gather_bytes(self, content: bytes) -> list[bytes]:
        """Return the bytes of every process, by rank, to rank 0; nothing to the others."""
        ...

    def all_gather_rows(self, array: Array, stops: Sequence[int]) -> None:
        """Give every process the rows that another has written, in place.

        Args:
            array: (n, ...), the same shape everywhere; a process has written the rows of its shard.
            stops: where the shard of each process ends, by rank.
        """
        ...

    def batch_group(self, counts: Sequence[int]) -> BatchGroup:
        """Return the processes as an objective sees them.

        Args:
            counts: instances of a batch that each process holds, by rank.
        """
        ...


class _Alone:
    rank, size = 0, 1

    def all_reduce(self, tensor: Tensor) -> Tensor:
        return tensor

    def broadcast_json(self, value: T) -> T:
        return value

    def broadcast_bytes(self, content: bytes | None) -> bytes:
        assert content is not None
        return content

    def gather_bytes(self, content: bytes) -> list[bytes]:
        return [content]

    def all_gather_rows(self, array: Array, stops: Sequence[int]) -> None:
        pass

    def batch_group(self, counts: Sequence[int]) -> BatchGroup:
        return SINGLE


SINGLE_PROCESS: ProcessGroup = _Alone()


def broadcast_arrays(processes: ProcessGroup, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return the arrays of rank 0, to the bit."""
    if processes.size == 1:
        return dict(arrays)
    return _unpack(processes.broadcast_bytes(_pack(arrays) if processes.rank == 0 else None))


def gather_arrays(processes: ProcessGroup, arrays: Mapping[str, Array]) -> list[dict[str, Array]]:
    """Return the arrays of every process, by rank, to rank 0; nothing to the others."""
    return [_unpack(content) for content in processes.gather_bytes(_pack(arrays))]


def _pack(arrays: Mapping[str, Array]) -> bytes:
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


def _unpack(content: bytes) -> dict[str, Array]:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)


def launched_size() -> int:
    """Return how many processes the launcher started, as it says in the environment."""
    text = os.environ.get("WORLD_SIZE", "1")
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(
            what="WORLD_SIZE is not a number of processes",
            found=repr(text),
            expected="1 or more, as torchrun sets it",
            next_step="Unset it, or use torchrun.",
        )
    return int(text)


@contextmanager
def process_group(*, cuda: bool = False) -> Iterator[ProcessGroup]:
    """Join the other processes that the launcher started, and leave them at the end; alone if there are none.

    What ends this process is left where the others find it: whichever of them waits for this one ends with the same
    cause, instead of waiting.

    Args:
        cuda: whether tensors on a GPU are exchanged too.

    Raises: PeerError if the others do not come, or one of them ends.
    """
    if launched_size() == 1:
        yield SINGLE_PROCESS
        return
    with _lost(None), _ends_at_once():
        try:
            store, rank, size = next(rendezvous("env://", timeout=PATIENCE))
        except ValueError as error:  # a variable that is not there, or no number
            raise UsageError(
                what="launcher of several processes is not there",
                found=f"WORLD_SIZE={os.environ['WORLD_SIZE']} and {str(error).splitlines()[0]}",
                expected="RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, as torchrun sets them",
                next_step="Unset WORLD_SIZE, or use torchrun.",
            ) from None
        backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    try:
        yield _Distributed(rank, size, store)
        with _lost(store):
            dist.barrier()
    except BaseException as error:
        if not isinstance(error, PeerError):
            code = getattr(error, "exit_code", getattr(error, "code", None))
            cause = {
                "rank": rank,
                "code": code if isinstance(code, int) else 70,
                "message": str(error) or type(error).__name__,
            }
            with suppress(RuntimeError):  # no other process is left
                store.compare_set(_CAUSE, "", json.dumps(cause))  # the first cause stays
        raise
    finally:
        dist.destroy_process_group()


@contextmanager
def _ends_at_once() -> Iterator[None]:
    """Let signals end the process at once: it waits outside Python, where no handler would run."""
    kept = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


@contextmanager
def _lost(store: Store | None) -> Iterator[None]:
    """Turn what a broken connection raises into the cause that the process at its other end left."""
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        cause: dict[str, Any] = {}
        if store is not None:
            with suppress(RuntimeError):  # it was killed, and left none
                store.wait([_CAUSE], _CAUSE_WAIT)
                cause = json.loads(store.get(_CAUSE))
        what = "another process of this run ended"
        lost = PeerError(
            what,
            found=f"rank {cause['rank']} reported: {cause['message'].rstrip('.')}"
            if cause
            else str(error).splitlines()[0][:160],
            expected="all processes to the end",
            next_step="See what it printed, and start all of them again.",
        )
        lost.exit_code, lost.explained = cause.get("code", lost.exit_code), bool(cause)
        raise lost from None


class _Distributed:
    def __init__(self, rank: int, size: int, store: Store) -> None:
        self.rank, self.size = rank, size
        self._store = store

    def all_reduce(self, tensor: Tensor) -> Tensor:
        with _lost(self._store):
            dist.all_reduce(tensor)
        return tensor

    def broadcast_json(self, value: T) -> T:
        agreed: T = json.loads(self.broadcast_bytes(json.dumps(value).encode() if self.rank == 0 else None))
        return agreed

    def broadcast_bytes(self, content: bytes | None) -> bytes:
        size = torch.tensor([len(content) if self.rank == 0 and content is not None else 0])
        with _lost(self._store):
            dist.broadcast(size, 0)
            data = _as_tensor(content) if self.rank == 0 and content else torch.empty(int(size), dtype=torch.uint8)
            if len(data):
                dist.broadcast(data, 0)
        return bytes(data.numpy())

    def gather_bytes(self, content: bytes) -> list[bytes]:
        sizes = self.gather(torch.tensor([len(content)]), [1] * self.size).tolist()
        padded = torch.zeros(max(sizes), dtype=torch.uint8)
        padded[: len(content)] = _as_tensor(content)
        received = [torch.empty_like(padded) for _ in sizes] if self.rank == 0 else None
        with _lost(self._store):
            dist.gather(padded, received)
        return [bytes(data[:size].numpy()) for data, size in zip(received or (), sizes, strict=bool(received))]

    def all_gather_rows(self, array: Array, stops: Sequence[int]) -> None:
        step = max(1, _SENT_BYTES * len(array) // max(1, array.nbytes))
        with _lost(self._store):
            for rank, (first, stop) in enumerate(pairwise([0, *stops])):
                for start in range(first, stop, step):
                    dist.broadcast(torch.from_numpy(array[start : min(start + step, stop)]), rank)

    def gather(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """Return the rows of all processes, of which each gives as many as ``counts`` says."""
        most = max(counts)
        sent = rows.to(torch.uint8) if rows.dtype == torch.bool else rows
        if len(rows) < most:
            sent = torch.cat([sent, sent.new_zeros(most - len(rows), *rows.shape[1:])])
        received = [torch.empty_like(sent) for _ in counts]
        with _lost(self._store):
            dist.all_gather(received, sent.contiguous())
        return torch.cat([part[:count] for part, count in zip(received, counts, strict=True)]).to(rows.dtype)

    def batch_group(self, counts: Sequence[int]) -> BatchGroup:
        return _BatchGroup(self, counts)


def _as_tensor(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else torch.empty(0, dtype=torch.uint8)


class _BatchGroup:
    """See ``pmrl_cli.batch.BatchGroup``."""

    def __init__(self, processes: _Distributed, counts: Sequence[int]) -> None:
        self.size = processes.size
        self._processes = processes
        self._counts = list(counts)
        self.start = [0, *accumulate(counts)][processes.rank]

    def gather(self, rows: Tensor, *, each: int | None = None) -> Tensor:
        counts = self._counts if each is None else [each] * self.size
        gathered: Tensor = _Gather.apply(rows, counts, self._processes)  # type: ignore[no-untyped-call]
        return gathered

    def local(self, rows: Tensor) -> Tensor:
        return rows[self.start : self.start + self._counts[self._processes.rank]]


class _Gather(torch.autograd.Function):
    """(own rows, counts, processes) -> the rows of all; gradients are summed over all, each takes its own rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: Sequence[int], processes: _Distributed) -> Tensor:  # noqa: ANN401
        ctx.processes, ctx.start, ctx.stop = (
            processes,
            sum(counts[: processes.rank]),
            sum(counts[: processes.rank + 1]),
        )
        return processes.gather(rows, counts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        return ctx.processes.all_reduce(grad.contiguous())[ctx.start : ctx.stop], None, None
