"""Feed: the batches of a run, drawn in one order everywhere and read ahead of the step."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from pmrl_cli.training.draws import generator_of

__all__ = ["Batch", "Batches", "Feed"]

WINDOW_ROWS = 2**18
"""Instances that are shuffled together. Up to so many an epoch is one permutation of all."""

RUN_ROWS = 1024
"""Beyond, a window is filled with so many instances in a row from places drawn at random: a bank on disk is then read
in pieces of a megabyte, where single rows would cost a seek each."""

_RESIDENT_SHARE = 0.6
"""Of a GPU's free memory that a bank may take; a larger one is sent batch by batch."""


class Batches:
    """The order in which training instances are drawn: anew every epoch, from (seed, epoch) alone.

    A last batch that would be short is left out; the next epoch deals its instances elsewhere.

    Args:
        count: training instances n.
        batch_size: B <= n.
        seed: of the order.
    """

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        self.count = count
        self.batch_size = batch_size
        self.per_epoch = count // batch_size
        self._seed = seed

    def order(self, epoch: int) -> Tensor:
        """Return a permutation of 0 .. n - 1: of windows of ``WINDOW_ROWS``, each filled from all over."""
        generator = generator_of(self._seed, "order", epoch)
        if self.count <= WINDOW_ROWS:
            return torch.randperm(self.count, generator=generator)
        order = torch.empty(self.count, dtype=torch.int64)
        place = 0
        # Whole runs first, in random order; the short last one wherever it falls.
        runs = torch.randperm(math.ceil(self.count / RUN_ROWS), generator=generator)
        for first in range(0, len(runs), WINDOW_ROWS // RUN_ROWS):
            window = runs[first : first + WINDOW_ROWS // RUN_ROWS]
            rows = (window[:, None] * RUN_ROWS + torch.arange(RUN_ROWS)).flatten()
            rows = rows[rows < self.count]
            order[place : place + len(rows)] = rows[torch.randperm(len(rows), generator=generator)]
            place += len(rows)
        return order

    def after(self, step: int) -> Iterator[Tensor]:
        """Yield (B,) numbers in 0 .. n - 1 for ever, from the batch that follows ``step`` steps."""
        while True:
            epoch, first = divmod(step, self.per_epoch)
            order = self.order(epoch)
            for index in range(first, self.per_epoch):
                yield order[index * self.batch_size : (index + 1) * self.batch_size]
                step += 1


@dataclass(frozen=True)
class Batch:
    """The instances of a step.

    Args:
        places: (B,) which of the training instances, of all processes.
        scores: per modality (b, p_m) of those that this process holds, on the device.
        present: (b, K) bool, likewise.
        counts: how many each process holds, by rank.
    """

    places: Tensor
    scores: list[Tensor]
    present: Tensor
    counts: list[int]

    def part(self, size: int) -> Batch:
        """Return the first instances of a batch that this process holds alone."""
        return Batch(self.places[:size], [s[:size] for s in self.scores], self.present[:size], [size])


class Feed:
    """Gathers batches from a bank; while a step is at one, a thread gathers the next.

    A GPU that has room holds the bank itself; else batches go there from pinned memory, beside the step.

    Args:
        scores: per modality (n_bank, p_m), in memory or memory-mapped.
        present: (n_bank, K) bool.
        positions: (n,) where in the bank each training instance is; anything where another process holds it.
        owners: (n,) rank that holds each training instance.
        rank: of this process.
        size: processes.
        batches: the order.
        device: where batches are wanted.
    """

    def __init__(
        self,
        scores: Sequence[Tensor],
        present: Tensor,
        positions: Tensor,
        owners: Tensor,
        *,
        rank: int,
        size: int,
        batches: Batches,
        device: torch.device,
    ) -> None:
        self._positions, self._owners = positions, owners
        self._rank, self._size = rank, size
        self._batches = batches
        self._device = device
        self._streams = device.type == "cuda"
        if self._streams:
            free, _ = torch.cuda.mem_get_info(device)
            if sum(s.nbytes for s in scores) <= _RESIDENT_SHARE * free:
                scores, present, self._streams = [s.to(device) for s in scores], present.to(device), False
        self._scores, self._present = list(scores), present
        # Two sets of buffers in turn: one is read by the step while the other is filled.
        self._buffers = [self._new_buffers() for _ in range(2)]
        self._sent: list[torch.cuda.Event | None] = [None, None]

    def _new_buffers(self) -> list[Tensor]:
        return [
            s.new_empty(self._batches.batch_size, *s.shape[1:], pin_memory=self._streams)
            for s in (*self._scores, self._present)
        ]

    def after(self, step: int) -> Generator[Batch]:
        """Yield batches for ever, from the one that follows ``step`` steps; each is good until the next is asked."""
        with ThreadPoolExecutor(1, thread_name_prefix="feed") as reader:
            ahead: Future[Batch] | None = None
            for turn, places in enumerate(self._batches.after(step)):
                following = reader.submit(self._gather, places, turn % 2)
                if ahead is not None:
                    yield self._on_device(ahead.result(), (turn - 1) % 2)
                ahead = following

    def _gather(self, places: Tensor, turn: int) -> Batch:
        owners = self._owners[places]
        counts = torch.bincount(owners, minlength=self._size).tolist()
        rows = self._positions[places if self._size == 1 else places[owners == self._rank]]
        sent = self._sent[turn]
        if sent is not None:
            sent.synchronize()  # the GPU has taken what these buffers held
        taken = [
            torch.index_select(source, 0, rows.to(source.device, non_blocking=True), out=buffer[: len(rows)])
            for source, buffer in zip((*self._scores, self._present), self._buffers[turn], strict=True)
        ]
        return Batch(places, taken[:-1], taken[-1], counts)

    def _on_device(self, batch: Batch, turn: int) -> Batch:
        if not self._streams:
            return batch
        scores = [s.to(self._device, non_blocking=True) for s in batch.scores]
        present = batch.present.to(self._device, non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        self._sent[turn] = event
        return Batch(batch.places, scores, present, batch.counts)
