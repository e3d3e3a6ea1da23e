"""Rows of a training step in one process with two threads, and in two processes with one thread each."""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

from rows import Row, Run

STEPS = 15
DIMS = (256, 256, 256)
DIM = 256


def seconds_of_a_step(batch: int, objective: str) -> float:
    """Return the median wall seconds of a step of this process, which shares it with others if it was so launched."""
    import torch

    from pmrl_cli.batch import Inputs
    from pmrl_cli.encoders.residual import Residual
    from pmrl_cli.methods import make_method
    from pmrl_cli.process_group import process_group
    from pmrl_cli.terms.weighted import WeightedTerms
    from pmrl_cli.train.loader import BatchLoader, BatchSampler, TrainingData
    from pmrl_cli.train.step import Step, StepOptions

    torch.manual_seed(0)
    scores = [torch.randn(4 * batch, width) for width in DIMS]
    present = torch.ones(4 * batch, len(DIMS), dtype=torch.bool)
    places = torch.arange(4 * batch)
    with process_group() as processes:
        encoder = Residual([torch.randn(width, DIM) / 16 for width in DIMS], "abc", hidden=DIM, dropout=0.0).train()
        terms = WeightedTerms(make_method(objective, {}).terms())
        take_step = Step(encoder, terms, StepOptions(1e-3), processes=processes)
        data = TrainingData(Inputs(scores, present), places, places * processes.size // len(places))
        loader = BatchLoader(data, BatchSampler(len(places), batch, 0), torch.device("cpu"), processes)
        times, stream = [], loader.after(0)
        for step in range(1, STEPS + 1):
            start = time.perf_counter()
            take_step(step, next(stream)).read()
            times.append(time.perf_counter() - start)
        stream.close()
        return statistics.median(times[2:])


def launched(size: int, batch: int, objective: str) -> float:
    """Return what rank 0 of ``size`` processes, on two cores together, measures."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = []
    for rank in range(size):
        environment = os.environ | {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1"}
        environment |= {"MASTER_PORT": str(port), "OMP_NUM_THREADS": str(2 // size)}
        environment |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
        command = [sys.executable, __file__, str(batch), objective]
        started.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE))
    printed = [process.communicate()[0] for process in started]
    return float(printed[0])


def processes_rows(run: Run) -> Iterator[Row]:
    """Yield a row for each objective and batch size; ``ours`` is two processes."""
    for objective in ("pmrl", "gram"):  # divided, and computed whole by each
        for batch in (256,) if run.quick else (1024, 4096):
            if objective == "gram" and batch > 1024:
                continue
            rounds = [(launched(2, batch, objective), launched(1, batch, objective)) for _ in range(3)]
            two, one = (statistics.median(times) for times in zip(*rounds, strict=True))
            yield Row(f"{objective}, B {batch}", two, {"one process, two threads": one})


if __name__ == "__main__":
    print(seconds_of_a_step(int(sys.argv[1]), sys.argv[2]))
