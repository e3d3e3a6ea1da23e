"""Time the kernel, forward and backward, against the SVD it replaces.

    python benchmarks/kernel.py [--modalities 2 3 4] [--batch 1024 8192]

Every variant takes raw adapter outputs, B x K x d, and gives the gradient of -log softmax(sigma / .05)_1 and of a
linear function of the leading direction: what the published objective takes. Process CPU time on one thread,
variants interleaved in one process, medians; each timed run follows an untimed one of its own, so that no variant
pays for memory that another gave back. The authors' path (``stack(dim=-1)``, ``full_matrices=True``) runs on
a sub-batch and is scaled, since its U alone takes B x d x d floats. The floor is one read of the vectors and one
write of their gradient at this machine's memory speed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from pmrl_cli.spectrum import spectrum

TEMPERATURE = 0.05
AUTHORS_BATCH = 64


def kernel(vectors: Tensor) -> tuple[Tensor, Tensor]:
    return spectrum(vectors)[:2]


def lifted_kernel(vectors: Tensor) -> tuple[Tensor, Tensor]:
    return spectrum(vectors, lifted=True)[:2]


def reduced_svd(vectors: Tensor) -> tuple[Tensor, Tensor]:
    columns = normalize(vectors, dim=-1).mT
    u, singular_values, _ = torch.linalg.svd(columns, full_matrices=False)  # noqa: TID251 - what we compare with
    return singular_values, u[..., 0]


def authors_svd(vectors: Tensor) -> tuple[Tensor, Tensor]:
    columns = torch.stack([normalize(one, dim=-1) for one in vectors.unbind(1)], dim=-1)
    u, singular_values, _ = torch.linalg.svd(columns, full_matrices=True)  # noqa: TID251 - what we compare with
    return singular_values, u[..., 0]


def step(
    variant: Callable[[Tensor], tuple[Tensor, Tensor]], vectors: Tensor, towards: Tensor
) -> Callable[[], object]:
    """Forward and backward of -log softmax(sigma / .05)_1, and of a given gradient of the leading direction."""
    one = torch.ones(())

    def forward_and_backward() -> object:
        singular_values, direction = variant(vectors)
        loss = -(singular_values / TEMPERATURE).log_softmax(1)[:, 0].mean()
        return torch.autograd.grad((loss, direction), vectors, (one, towards))

    return forward_and_backward


def cpu_ms(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return 1e3 * (time.process_time() - start)


def rows(modalities: int, dim: int, batch: int, repeats: int) -> list[dict[str, Any]]:
    """Measure one shape on one thread: a row per variant, with the ``ms`` of CPU time of a forward and backward."""
    shape = (batch, modalities, dim)
    vectors = (torch.randn(batch, 1, dim) + torch.randn(shape)).requires_grad_()
    towards = torch.randn(batch, dim) / batch
    authors_batch = min(AUTHORS_BATCH, batch)
    few, few_towards = vectors[:authors_batch].detach().requires_grad_(), towards[:authors_batch]
    source, target = vectors.detach(), torch.empty(shape)
    steps = {
        "kernel": step(kernel, vectors, towards),
        "lifted": step(lifted_kernel, vectors, towards),
        "reduced": step(reduced_svd, vectors, towards),
        "authors": step(authors_svd, few, few_towards),
        "floor": partial(target.copy_, source),
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(repeats):
            for name, call in steps.items():
                call()
                times[name].append(cpu_ms(call))
    finally:
        torch.set_num_threads(threads)
    ms = {name: statistics.median(series) for name, series in times.items()}
    ms["authors"] *= batch / authors_batch
    where = {"modalities": modalities, "dim": dim, "batch": batch}
    return [{"variant": name, **where, "ms": value} for name, value in ms.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modalities", type=int, nargs="+", default=list(range(2, 9)))
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--batch", type=int, nargs="+", default=[1024])
    parser.add_argument("--repeats", type=int, default=21)
    options = parser.parse_args()
    torch.manual_seed(0)

    print(f"ms of CPU, 1 thread, d={options.dim}, median of {options.repeats}")
    print(f"authors: measured at B={AUTHORS_BATCH} or less, scaled")
    print(f"{'K':>2} {'B':>5} {'kernel':>8} {'lifted':>8} {'reduced':>8} {'authors':>8} {'floor':>7}", end="")
    print(f" {'reduced/kernel':>15} {'authors/kernel':>15} {'kernel/floor':>13}")
    for batch in options.batch:
        for modalities in options.modalities:
            measured = rows(modalities, options.dim, batch, options.repeats)
            ms = {row["variant"]: row["ms"] for row in measured}
            print(f"{modalities:2d} {batch:5d} {ms['kernel']:8.2f} {ms['lifted']:8.2f} {ms['reduced']:8.2f}", end="")
            print(f" {ms['authors']:8.0f} {ms['floor']:7.2f} {ms['reduced'] / ms['kernel']:15.1f}", end="")
            print(f" {ms['authors'] / ms['kernel']:15.0f} {ms['kernel'] / ms['floor']:13.1f}", flush=True)


if __name__ == "__main__":
    main()
