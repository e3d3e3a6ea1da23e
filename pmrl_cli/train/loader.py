"""The batches of a run, drawn in one order everywhere and read ahead of the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from pmrl_cli.batch import Inputs
from pmrl_cli.closed_form.arithmetic import has_room
from pmrl_cli.process_group import SINGLE_PROCESS, ProcessGroup
from pmrl_cli.train.draws import generator_of

__all__ = ["Batch", "BatchLoader", "BatchSampler", "TrainingData", "map_inputs", "tensors_of"]

WINDOW_ROWS = 2**18
"""Instances that are shuffled together. Up to so many an epoch is one permutation of all."""

RUN_ROWS = 1024
"""Beyond, a window is filled with so many instances in a row from places drawn at random: components on disk are then
read in pieces of a megabyte, where single rows would cost a seek each."""


class BatchSampler:
    """The order in which training instances are drawn: another every epoch, from (seed, epoch) alone.

    A last batch that would be short is left out; the next epoch draws its instances in other batches.

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
        inputs: those that this process holds, on the device.
        counts: how many each process holds, by rank.
    """

    places: Tensor
    inputs: Inputs
    counts: list[int]

    def part(self, size: int) -> Batch:
        """Return the first instances of a batch that this process holds alone."""
        return Batch(self.places[:size], map_inputs(self.inputs, lambda t: t[:size]), [size])


@dataclass(frozen=True)
class TrainingData:
    """The instances that a run trains on, and where each is.

    Args:
        inputs: of the instances that this process holds, in memory or memory-mapped, among them those it trains on.
        positions: (n,) where in ``inputs`` each training instance is; undefined for those of other processes.
        ranks: (n,) rank that holds each training instance.
    """

    inputs: Inputs
    positions: Tensor
    ranks: Tensor

    def __len__(self) -> int:
        return len(self.positions)


def map_inputs(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    """Return inputs whose every tensor is changed."""
    labels, match = (None if tensor is None else change(tensor) for tensor in (inputs.labels, inputs.match))
    return Inputs([change(c) for c in inputs.components], change(inputs.present), labels, match)


def tensors_of(inputs: Inputs) -> list[Tensor]:
    """Return the tensors of inputs, always in the same order."""
    return [*inputs.components, inputs.present, *(t for t in (inputs.labels, inputs.match) if t is not None)]


class BatchLoader:
    """Gathers batches; while a step is at one, a thread gathers the next.

    A GPU that has room holds the components itself; else batches go there from pinned memory, beside the step.

    Args:
        data: that is trained on.
        sampler: the order.
        device: where batches are wanted.
        processes: the processes that train together.
    """

    def __init__(
        self,
        data: TrainingData,
        sampler: BatchSampler,
        device: torch.device,
        processes: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        self._data, self._sampler, self._processes = data, sampler, processes
        self._device = device
        self._inputs = data.inputs
        self._streams = device.type == "cuda"
        there = all(components.device.type == device.type for components in self._inputs.components)
        if self._streams and (there or has_room(device, sum(tensor.nbytes for tensor in tensors_of(self._inputs)))):
            self._inputs, self._streams = map_inputs(self._inputs, lambda t: t.to(device)), False
        # Two sets of buffers in turn: one is read by the step while the other is filled.
        self._buffers = [map_inputs(self._inputs, self._new_buffer) for _ in range(2)]
        self._sent: list[torch.cuda.Event | None] = [None, None]

    def _new_buffer(self, tensor: Tensor) -> Tensor:
        return tensor.new_empty(self._sampler.batch_size, *tensor.shape[1:], pin_memory=self._streams)

    def after(self, step: int) -> Generator[Batch]:
        """Yield batches for ever, from the one that follows ``step`` steps; each is good until the next is asked."""
        with ThreadPoolExecutor(1, thread_name_prefix="loader") as reader:
            ahead: Future[Batch] | None = None
            for turn, places in enumerate(self._sampler.after(step)):
                following = reader.submit(self._gather, places, turn % 2)
                if ahead is not None:
                    yield self._on_device(ahead.result(), (turn - 1) % 2)
                ahead = following

    def _gather(self, places: Tensor, turn: int) -> Batch:
        ranks = self._data.ranks[places]
        counts = torch.bincount(ranks, minlength=self._processes.size).tolist()
        rows = self._data.positions[places if self._processes.size == 1 else places[ranks == self._processes.rank]]
        sent = self._sent[turn]
        if sent is not None:
            sent.synchronize()  # the GPU has taken what these buffers held
        taken = map_inputs(self._buffers[turn], lambda buffer: buffer[: len(rows)])
        for source, buffer in zip(tensors_of(self._inputs), tensors_of(taken), strict=True):
            torch.index_select(source, 0, rows.to(source.device, non_blocking=True), out=buffer)
        return Batch(places, taken, counts)

    def _on_device(self, batch: Batch, turn: int) -> Batch:
        if not self._streams:
            return batch
        inputs = map_inputs(batch.inputs, lambda tensor: tensor.to(self._device, non_blocking=True))
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        self._sent[turn] = event
        return Batch(batch.places, inputs, batch.counts)
