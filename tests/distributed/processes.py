"""Runs a function in several processes that have joined one processes."""

from __future__ import annotations

import multiprocessing
import os
import socket
import traceback


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _plain(value):
    """Tensors as arrays: those would be sent as memory that ends with the process."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value.numpy() if hasattr(value, "numpy") else value


def _process(rank, function, size, port, arguments, result):
    import torch

    from pmrl_cli.process_group import process_group

    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    try:
        with process_group() as processes:
            result.send(_plain(function(processes, *arguments)))
    except BaseException:  # noqa: BLE001 - the test shows it
        result.send(traceback.format_exc())


def in_processes(function, size, *arguments):
    """Return what ``function(processes, *arguments)`` returns in each of ``size`` processes, by rank."""
    # A server that has imported the libraries once, and has no threads yet: a fork of it is quick and safe.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "pmrl_cli.aligner", "pmrl_cli.diagnosis"])
    port = free_port()
    ends = [context.Pipe(duplex=False) for _ in range(size)]
    started = [
        context.Process(target=_process, args=(rank, function, size, port, arguments, send))
        for rank, (_, send) in enumerate(ends)
    ]
    for process in started:
        process.start()
    found = [receive.recv() if receive.poll(120) else "no answer in 120 s" for receive, _ in ends]
    for process in started:
        process.join(10)
        process.kill()
    errors = [answer for answer in found if isinstance(answer, str)]
    assert not errors, "\n".join(errors)
    return found
