"""Time the kernel, forward and backward, against the SVD it replaces.

    python benchmarks/kernel.py

Every variant takes raw adapter outputs, B x K x d, and gives the gradient of the published objective's use of them:
-log softmax(sigma / .05)_1 plus a linear function of the leading direction. Process CPU time on one thread,
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

import torch
from torch import Tensor
from torch.nn.functional import normalize

from pmrl_cli.spectrum import spectrum

TEMPERATURE = 0.05
AUTHORS_BATCH = 64


def loss_of(singular_values: Tensor, direction: Tensor, towards: Tensor) -> Tensor:
    return -(singular_values / TEMPERATURE).log_softmax(1)[:, 0].mean() + (direction * towards).sum()


def kernel(vectors: Tensor, towards: Tensor) -> Tensor:
    singular_values, direction, _ = spectrum(vectors)
    return loss_of(singular_values, direction, towards)


def lifted_kernel(vectors: Tensor, towards: Tensor) -> Tensor:
    singular_values, direction, _ = spectrum(vectors, lifted=True)
    return loss_of(singular_values, direction, towards)


def reduced_svd(vectors: Tensor, towards: Tensor) -> Tensor:
    u, singular_values, _ = torch.linalg.svd(  # noqa: TID251 - it is what we compare with
        normalize(vectors, dim=-1).mT, full_matrices=False
    )
    return loss_of(singular_values, u[..., 0], towards)


def authors_svd(vectors: Tensor, towards: Tensor) -> Tensor:
    columns = torch.stack([normalize(one, dim=-1) for one in vectors.unbind(1)], dim=-1)
    u, singular_values, _ = torch.linalg.svd(columns, full_matrices=True)  # noqa: TID251 - it is what we compare with
    return loss_of(singular_values, u[..., 0], towards)


def cpu_ms(step: Callable[[], object]) -> float:
    start = time.process_time()
    step()
    return 1e3 * (time.process_time() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modalities", type=int, nargs="+", default=[2, 3, 4, 8])
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=21)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)

    authors_batch = min(AUTHORS_BATCH, options.batch)
    print(f"ms of CPU, 1 thread, B={options.batch}, d={options.dim}, median of {options.repeats}")
    print(f"authors: measured at B={authors_batch}, scaled")
    print(f"{'K':>2} {'kernel':>8} {'lifted':>8} {'reduced':>8} {'authors':>8} {'floor':>7}", end="")
    print(f" {'reduced/kernel':>15} {'authors/kernel':>15} {'kernel/floor':>13}")
    for modalities in options.modalities:
        shape = (options.batch, modalities, options.dim)
        vectors = (torch.randn(options.batch, 1, options.dim) + torch.randn(shape)).requires_grad_()
        towards = torch.randn(options.batch, options.dim) / options.batch
        few, few_towards = vectors[:authors_batch].detach().requires_grad_(), towards[:authors_batch]
        source, target = vectors.detach(), torch.empty(shape)
        steps: dict[str, Callable[[], object]] = {
            "kernel": lambda v=vectors, t=towards: torch.autograd.grad(kernel(v, t), v),
            "lifted": lambda v=vectors, t=towards: torch.autograd.grad(lifted_kernel(v, t), v),
            "reduced": lambda v=vectors, t=towards: torch.autograd.grad(reduced_svd(v, t), v),
            "authors": lambda v=few, t=few_towards: torch.autograd.grad(authors_svd(v, t), v),
            "floor": lambda s=source, t=target: t.copy_(s),
        }
        times: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(options.repeats):
            for name, step in steps.items():
                step()
                times[name].append(cpu_ms(step))
        ms = {name: statistics.median(series) for name, series in times.items()}
        ms["authors"] *= options.batch / authors_batch
        print(f"{modalities:2d} {ms['kernel']:8.2f} {ms['lifted']:8.2f} {ms['reduced']:8.2f}", end="")
        print(f" {ms['authors']:8.0f} {ms['floor']:7.2f} {ms['reduced'] / ms['kernel']:15.1f}", end="")
        print(f" {ms['authors'] / ms['kernel']:15.0f} {ms['kernel'] / ms['floor']:13.1f}")


if __name__ == "__main__":
    main()
