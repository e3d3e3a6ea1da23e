"""Rows of the kernel, forward and backward, against the SVD it replaces.

Every variant takes raw adapter outputs, B x K x d, and gives the gradient of -log softmax(sigma / .05)_1 and of a
linear function of the leading direction: what the published objective takes. The authors' path (``stack(dim=-1)``,
``full_matrices=True``) runs on a sub-batch and is scaled, since its U alone takes B x d x d floats. The floor is one
read of the vectors and one write of their gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from rows import Row, Run, in_turn, row_of
from torch import Tensor
from torch.nn.functional import normalize

from pmrl_cli.spectrum import spectrum

TEMPERATURE = 0.05
AUTHORS_BATCH = 64


def kernel(vectors: Tensor) -> tuple[Tensor, Tensor]:
    return spectrum(vectors)[:2]


def sign_aware_kernel(vectors: Tensor) -> tuple[Tensor, Tensor]:
    return spectrum(vectors, sign_aware=True)[:2]


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
    one = torch.ones((), device=vectors.device)

    def forward_and_backward() -> object:
        singular_values, direction = variant(vectors)
        loss = -(singular_values / TEMPERATURE).log_softmax(1)[:, 0].mean()
        return torch.autograd.grad((loss, direction), vectors, (one, towards))

    return forward_and_backward


def kernel_rows(run: Run) -> Iterator[Row]:
    """Yield two rows for each number of modalities: the kernel, and the kernel of the sign-aware relation."""
    batch, dim = (128, 128) if run.quick else (1024, 512)
    few = min(AUTHORS_BATCH, batch)
    repeats = run.repeats if run.device == "cpu" else 3  # an SVD there takes seconds
    for modalities in range(2, 9):
        shape = (batch, modalities, dim)
        torch.manual_seed(0)
        vectors = (torch.randn(batch, 1, dim) + torch.randn(shape)).to(run.device).requires_grad_()
        towards = torch.randn(batch, dim, device=run.device) / batch
        source, target = vectors.detach(), torch.empty(shape, device=run.device)
        calls = {
            "ours": step(kernel, vectors, towards),
            "sign_aware": step(sign_aware_kernel, vectors, towards),
            "reduced SVD": step(reduced_svd, vectors, towards),
            "authors' SVD": step(authors_svd, vectors[:few].detach().requires_grad_(), towards[:few]),
            "floor": partial(target.copy_, source),
        }
        found = in_turn(calls, repeats=repeats, timer=run.timer)
        found["authors' SVD"] *= batch / few
        sign_aware = found.pop("sign_aware")
        yield row_of(f"K {modalities}, B {batch}, d {dim}", found)
        yield row_of(f"K {modalities}, sign_aware", {**found, "ours": sign_aware})
