"""Which process holds which training instances, and moments that all of them agree on."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from pmrl_cli.closed_form.moments import ColumnMoments, CrossMoments, SecondMoment
from pmrl_cli.data.dataset import Dataset
from pmrl_cli.data.shards import shard_rows
from pmrl_cli.process_group import ProcessGroup, broadcast_arrays, gather_arrays

__all__ = ["local_rows", "rank_of_rows", "reduce_cross", "reduce_moments"]

Moments = TypeVar("Moments", ColumnMoments, SecondMoment)


def local_rows(processes: ProcessGroup, dataset: Dataset, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return those of ``rows`` in this rank's contiguous shard of the data set."""
    own = shard_rows(len(dataset), processes.rank, processes.size)
    local: npt.NDArray[np.int64] = rows[(rows >= own.start) & (rows < own.stop)]
    return local


def rank_of_rows(processes: ProcessGroup, dataset: Dataset, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the rank whose shard holds each of ``rows``."""
    stops = [shard_rows(len(dataset), rank, processes.size).stop for rank in range(processes.size)]
    ranks: npt.NDArray[np.int64] = np.searchsorted(stops, rows, side="right")
    return ranks


def reduce_moments(processes: ProcessGroup, moments: Moments) -> Moments:
    """Return the moments of the rows of all processes, the same bits in each."""
    if processes.size == 1:
        return moments

    def named(moments: Moments) -> dict[str, npt.NDArray[np.float64]]:
        return {str(i): array for i, array in enumerate(moments.arrays())}

    for number, arrays in enumerate(gather_arrays(processes, named(moments))):  # nothing but at rank 0
        if number:
            moments.merge(type(moments).from_arrays(list(arrays.values()), moments.arithmetic))
    return type(moments).from_arrays(list(broadcast_arrays(processes, named(moments)).values()), moments.arithmetic)


def reduce_cross(processes: ProcessGroup, moments: CrossMoments) -> CrossMoments:
    """Return the cross moments of the instances of all processes, the same bits in each."""
    if processes.size == 1:
        return moments
    return moments.from_arrays([processes.all_reduce(torch.from_numpy(array)).numpy() for array in moments.arrays()])
